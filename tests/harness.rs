//! What every case starts from: an empty directory of its own, and the real program run in it.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// An empty directory that goes when it is dropped; a failing test's stays, and is named.
pub struct Directory(PathBuf);

impl Directory {
    /// A new one; no two are the same, in this process or another.
    pub fn new() -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary files is there and writable");
        Directory(path)
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
