//! The one test binary: it runs the real program from outside, as a person would.
//!
//! A case belongs here when it needs the whole program: its command line, its files, its exit codes. What one
//! module promises is tested beside that module. A regression is named after its issue.

mod harness; // An empty directory of one's own, and the program itself.
mod oracle; // The contract computed slowly from whole inputs; what the program's outputs are compared with.
mod tidy; // Laws of the source text: who may name whom, how long a file may be.

mod cases {
    //! One module per thing a person does with the program.

    mod job; // What `check` says about job files, above all about wrong ones.
}
