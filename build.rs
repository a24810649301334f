//! Compresses the texts that never change, so that they take a third of their size in the program and no time to send.

use std::path::Path;
use std::{env, fs, io};

#[path = "src/http/gzip_member.rs"]
mod gzip_member;

const TEXTS: [&str; 2] = ["src/api/page/status.html", "src/api/openapi.json"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/http/gzip_member.rs");
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    for text in TEXTS {
        println!("cargo::rerun-if-changed={text}");
        let name = text.rsplit('/').next().unwrap_or(text);
        fs::write(Path::new(&out).join(format!("{name}.gz")), gzip_member::member(&fs::read(text)?, 10))?;
    }
    Ok(())
}
