//! The one test binary: it runs the real program from outside, as a person would.
//!
//! A case belongs here when it needs the whole program: its command line, its files, its exit codes. What one
//! module promises is tested beside that module. A regression is named after its issue.

#[allow(dead_code, reason = "the benchmark includes this file too and uses the rest")]
#[path = "../bench/broker.rs"]
mod broker; // A real Kafka cluster and schema registry.
mod bucket; // An object store on a loopback port.
mod cluster; // Several processes of the program that run one job.
mod day; // A small generated day, its job, and what of its files is compared.
mod fed; // A job whose input files grow, and what must be committed in the end.
#[allow(dead_code, reason = "the benchmark includes this file too and uses the rest")]
#[path = "../bench/generation.rs"]
mod generation; // A cluster under a fault.
mod harness; // An empty directory of one's own, and the program itself.
#[allow(dead_code, reason = "the benchmark includes this file too and uses the rest")]
#[path = "../bench/hosts.rs"]
mod hosts; // Hosts on one machine: network namespaces.
mod jobs; // Jobs as files and as what must come out of them.
mod kafka; // Jobs over topics of a real broker: laid out, fed, read back, held against the oracle.
mod oracle; // The contract computed slowly from whole inputs; what the program's outputs are compared with.
mod process; // A run that is watched, signalled and killed.
mod proxy; // A bad way between a job and its broker.
mod tidy; // Laws of the source text: who may name whom, how long a file may be.

mod cases {
    //! One module per thing a person does with the program.

    mod bad_input; // What becomes of bytes that are no records, and of files that are no inputs.
    mod broker; // The cluster that the Kafka cases stand on.
    mod checkpoints; // What is written of a state follows what changed.
    mod cluster; // One job over several processes: any shape, another one at every restart, whoever is killed.
    mod cluster_faults; // Clusters whose processes, hosts and networks fail: the same outputs.
    mod commands; // What every command prints, in words and as JSON, and where.
    mod damage; // A job's files torn, flipped, lost, stale or somebody else's: recovered from or refused.
    mod follow; // Files that grow while the job runs, and the end by Ctrl-C.
    mod follow_kills; // Files that grow while they are read, with kills in between.
    mod found; // What an adversarial reading found, one case each.
    mod history; // Recorded epochs again: the live outputs to the byte, and what was changed in them is found.
    mod interrupt; // Ctrl-C, once and twice.
    mod job; // What `check` says about job files, above all about wrong ones.
    mod job_kafka; // The same for topics, properties and secrets.
    mod kafka_brokers; // Brokers that go and come back under a running job.
    mod kafka_commands; // What is done with topics from the command line, and what is said of them.
    mod kafka_kills; // Topics, killed anywhere and started again, for two readers; and the control arm.
    mod kafka_network; // Cut, silent, slow, and an EndTxn that comes too late.
    mod kafka_partitions; // Partitions without messages, and partitions that are added.
    mod kafka_poison; // Bad messages of every kind in topics: dead letters, exactly once.
    mod kafka_readme; // The README's Kafka quick start, line by line.
    mod kafka_replay; // Spans, recorded epochs and planted differences, over topics.
    mod kafka_results; // Undisturbed runs over topics against the oracle: workers, shards, headers, partitions.
    mod kafka_security; // Who is let in, what a wrong setting comes to, and that secrets stay secret.
    mod kafka_topics; // Topics that are not what they were: refused by name; and compaction.
    mod kafka_zombies; // A frozen instance that wakes after another has taken over, and one that is not wanted.
    mod kills; // Killed anywhere and started again, the final files are the same.
    mod launcher; // Clusters that are launched: watched, killed, frozen, started again, interrupted.
    mod obstacles; // Another instance, a full disk, no permission, inputs that lose what was read: named.
    mod readme; // The commands of the README.
    mod registry; // What a real schema registry answers, and what becomes of it.
    mod replay; // A span of history again: the same as a run over just that, killed or not.
    mod replay_log; // Replays from decoded messages give what replays from the source give.
    mod results; // Finite runs against the oracle: every dataflow, setting, stage and number of workers.
    mod state; // The state at a URL: on a disk, in an object store, unreachable.
    mod what_if; // A recorded span under other settings: the difference of two full runs.
    mod wild; // Seeded small jobs of extremes against the oracle.
}
