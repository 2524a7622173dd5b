mod baseline; mod baseline_alerts; mod baseline_keys; mod baseline_orders; mod baseline_out; mod bytes; mod digest; mod engine; mod flat; mod latency; mod messages; mod open_loop; mod process; mod workload;
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let part = workload::Part::ALL.into_iter().find(|p| p.name() == a[1]).unwrap();
    let size = workload::Size { seed: 1, accounts: a[2].parse().unwrap(), records: a[3].parse().unwrap(), step: a[4].parse().unwrap() };
    let w: usize = a[5].parse().unwrap();
    let way = &a[6];
    let t = process::now();
    let (epochs, run) = match way.as_str() {
        "d" => { let (e, s) = workload::decoded(part, size, w); let r = engine::run(part, &e, s); (e, r) }
        "db" => { let (e, mut s) = workload::decoded(part, size, 1); let r = baseline::run_decoded(part, &e, s.remove(0)); (e, r) }
        "b" => { let (e, s) = workload::lines(part, size); let r = bytes::run(part, &e, s, w); (e, r) }
        _ => { let (e, s) = workload::lines(part, size); let r = baseline::run_bytes(part, &e, s); (e, r) }
    };
    eprintln!("{part:?} {way} w{w} {} {:.3}s {:.3} M/s cpu {:.3} ({:.3} M/cpu-s) {:?} rss {:?} total {:?}", epochs.measured(), run.seconds, epochs.measured() as f64 / run.seconds / 1e6, run.cpu_seconds, epochs.measured() as f64 / run.cpu_seconds / 1e6, run.tally, process::resident(), t.elapsed());
}
