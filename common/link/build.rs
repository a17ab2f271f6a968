//! Compiles `schemas/link.proto` without an outside compiler.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../../schemas/link.proto");
    let files = protox::compile(["link.proto"], ["../../schemas"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(files)?;
    Ok(())
}
