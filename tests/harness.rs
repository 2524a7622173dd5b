//! What every case starts from: an empty directory of its own, and the real program run in it.

use serde_json::Value;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

/// An empty directory that goes when it is dropped; a failing test's stays, and is named.
pub struct Directory(PathBuf);

impl Directory {
    /// A new one; no two are the same, in this process or another.
    pub fn new() -> Directory {
        Directory::below(&std::env::temp_dir())
    }

    /// A new one, in memory where the system offers that. A killed process leaves what it wrote, synced or not: to a
    /// case that kills one a disk adds nothing but time.
    pub fn in_memory() -> Directory {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            Directory::below(memory)
        } else {
            Directory::new()
        }
    }

    fn below(directory: &Path) -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("tidegate-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary files is there and writable");
        Directory(path)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// Where a file of it lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file's content.
    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.0.join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Writes a file, and the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        let above = path.parent().expect("a file stands in a directory");
        std::fs::create_dir_all(above).expect("directories can be made");
        std::fs::write(path, content).expect("files can be written");
    }

    /// Writes more to the end of a file, made when missing.
    pub fn append(&self, name: &str, content: impl AsRef<[u8]>) {
        let file = File::options().create(true).append(true).open(self.0.join(name));
        let written = file.and_then(|mut file| file.write_all(content.as_ref()));
        written.expect("files can be appended to");
    }

    /// Starts `tidegate` here and returns at once; its logs go to the file `stderr`, its results to `stdout`.
    pub fn start(&self, arguments: &[&str]) -> Running<'_> {
        let file = |name| File::create(self.0.join(name)).expect("files can be made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let command = command.args(arguments).current_dir(&self.0);
        let child = command
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("the program starts");
        Running {
            directory: self,
            child,
        }
    }

    /// What `tidegate status` says of the job here.
    #[track_caller]
    pub fn status(&self) -> Value {
        let text = self.tidegate(&["status", "job.toml", "--json"]).succeeded();
        serde_json::from_str(&text).expect("status is JSON")
    }

    /// Runs `tidegate` here, with these arguments and environment variables, to its end.
    pub fn tidegate_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(&self.0)
            .output()
            .expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("what the program prints is UTF-8");
        Outcome {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs `tidegate` here with its results and its logs going to these files; gives the exit code.
    pub fn tidegate_into(&self, arguments: &[&str], stdout: &str, stderr: &str) -> Option<i32> {
        let open = |path: &str| {
            File::options()
                .write(true)
                .open(path)
                .expect("a file to write to")
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(arguments)
            .current_dir(&self.0)
            .stdout(open(stdout))
            .stderr(open(stderr));
        command.status().expect("the program starts").code()
    }

    /// Runs `tidegate` here.
    pub fn tidegate(&self, arguments: &[&str]) -> Outcome {
        self.tidegate_with(arguments, &[])
    }
}

/// Looks at a running program before a case gives up: many times what a slow machine needs.
const LOOKS: usize = 10_000;

/// A `tidegate` that runs; it is killed when this is dropped.
pub struct Running<'a> {
    directory: &'a Directory,
    child: Child,
}

impl Running<'_> {
    /// Looks at `status` until it is as wanted; fails when the program ends before, or after very many looks.
    #[track_caller]
    pub fn wait_for_status(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) {
        for _ in 0..LOOKS {
            if wanted(&self.directory.status()) {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                let log = String::from_utf8_lossy(&self.directory.read("stderr")).into_owned();
                panic!("ended ({status}) before {what}:\n{log}");
            }
        }
        panic!("never {what}; status:\n{:#}", self.directory.status());
    }

    /// A line of `/proc/<pid>/status`; none once the program has ended.
    pub fn process(&self, name: &str) -> Option<String> {
        of_process(self.child.id(), name)
    }

    /// Ctrl-C, once the program listens for it: it drains and ends.
    #[track_caller]
    pub fn interrupt(mut self) -> Outcome {
        let pid = self.child.id();
        self.wait_for_status("it listens for Ctrl-C", |_| {
            let caught = of_process(pid, "SigCgt").expect("a running program");
            let caught = u64::from_str_radix(&caught, 16).expect("a mask of signals");
            caught & 0b10 != 0 // bit n - 1 is signal n; SIGINT is 2
        });
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -INT {pid}")])
            .status();
        assert!(sent.expect("a shell").success(), "the signal was sent");
        self.end()
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn end(mut self) -> Outcome {
        let status = self.child.wait().expect("a child can be waited for");
        let text = |name| String::from_utf8_lossy(&self.directory.read(name)).into_owned();
        Outcome {
            code: status.code(),
            stdout: text("stdout"),
            stderr: text("stderr"),
        }
    }
}

/// A line of `/proc/<pid>/status`.
fn of_process(pid: u32, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left for inspection: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0); // what cannot be removed is the system's to clear away
        }
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Results.
    pub stdout: String,
    /// Logs and errors.
    pub stderr: String,
}

impl Outcome {
    /// Asserts success and gives the results.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(
            self.code,
            Some(0),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Asserts failure with this code and gives the errors.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self.stderr
    }
}
