//! One big object over loopback, file to file with a final sync, beside bare quinn that does the same with BLAKE3 over
//! the bytes; and many small ones. Each side is a process of its own. Prints a table.
//!
//! `MADAKE_MIB=N` sets the big object's size (1024 without it), `MADAKE_ROUNDS=N` how often both are measured in turn
//! (3), `MADAKE_FILES=N` how many small ones there are (10,000).
#![allow(clippy::unwrap_used)] // a panic is how a bench reports
#![allow(missing_docs)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use madake_log::AuthorKey;
use madake_node::net::Endpoint;
use serde_json::Value;

const MADAKE: &str = env!("CARGO_BIN_EXE_madake");
const CHUNK: usize = 1 << 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap())
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let (Some(word), Some(path)) = (arguments.next(), arguments.next())
        && word == "bare"
    {
        return bare_server(Path::new(&path));
    }
    let (mib, rounds, files) =
        (number("MADAKE_MIB", 1_024), number("MADAKE_ROUNDS", 3), number("MADAKE_FILES", 10_000));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("big");
    let id = fill(&file, mib);

    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        bare.push(bare_quinn(&file, &folder.path().join("copy"), &id));
        ours.push(pull(&folder.path().join(format!("{round}")), |home| {
            madake(home, &["commit", "big", file.to_str().unwrap()]);
            mib << 20
        }));
        eprintln!("round {round}: bare {:.2} s, madake {:.2} s", bare[round as usize], ours[round as usize]);
    }
    let small = pull(&folder.path().join("small"), |home| {
        let many = folder.path().join("many");
        std::fs::create_dir(&many).unwrap();
        for i in 0..files {
            std::fs::write(many.join(i.to_string()), noise(i, 4_096)).unwrap();
        }
        madake(home, &["commit", "--tree", many.to_str().unwrap(), "--prefix", "many"]);
        0
    });
    let (bare, ours) = (median(bare), median(ours));
    let rate = |seconds: f64| mib as f64 / seconds;
    println!("| {mib} MiB over loopback, file to file, synced | seconds | MiB/s | of bare quinn | goal |");
    println!("|---|---:|---:|---:|---:|");
    println!("| bare quinn and BLAKE3 | {bare:.2} | {:.0} | 1 | |", rate(bare));
    println!("| madake pull | {ours:.2} | {:.0} | {:.2} | 0.9 |", rate(ours), bare / ours);
    println!("\n| {files} files of 4 KiB | seconds | files/s |\n|---|---:|---:|");
    println!("| madake pull, their commits too | {small:.2} | {:.0} |", files as f64 / small);
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn fill(path: &Path, mib: u64) -> blake3::Hash {
    let (mut file, mut hasher) = (File::create(path).unwrap(), blake3::Hasher::new());
    for i in 0..mib {
        let bytes = noise(i, CHUNK);
        hasher.update(&bytes);
        file.write_all(&bytes).unwrap();
    }
    file.sync_all().unwrap();
    hasher.finalize()
}

fn madake(home: &Path, args: &[&str]) -> Value {
    let out = Command::new(MADAKE).arg("--home").arg(home).arg("--json").args(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    let last = String::from_utf8(out.stdout).unwrap().lines().last().map(str::to_owned);
    last.map_or(Value::Null, |line| serde_json::from_str(&line).unwrap())
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn first_line(command: &mut Command) -> (Running, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Running(child), line)
}

/// A pull of what `fill` puts into the other home: the seconds that it says it took.
fn pull(folder: &Path, fill: impl FnOnce(&Path) -> u64) -> f64 {
    std::fs::create_dir(folder).unwrap();
    let (a, b) = (folder.join("a"), folder.join("b"));
    let author = madake(&a, &["init"])["author"].as_str().unwrap().to_owned();
    madake(&b, &["init"]);
    let bytes = fill(&a);
    let mut serve = Command::new(MADAKE);
    serve.arg("--home").arg(&a).args(["--json", "serve", "--listen", "127.0.0.1:0"]);
    let (_daemon, ready) = first_line(&mut serve);
    let ready: Value = serde_json::from_str(&ready).unwrap();
    madake(&b, &["peer", "add", ready["ticket"].as_str().unwrap(), "--name", "a"]);
    madake(&a, &["peer", "add", madake(&b, &["id"])["ticket"].as_str().unwrap()]);
    madake(&b, &["follow", &author]);
    let result = madake(&b, &["pull", "a"]);
    assert_eq!(result["missing"].as_array().unwrap().len(), 0, "{result}");
    assert!(result["received"]["bytes"].as_u64().unwrap() >= bytes, "{result}");
    std::fs::remove_dir_all(folder).unwrap_or_default();
    result["seconds"].as_f64().unwrap()
}

fn key(seed: u8) -> Arc<AuthorKey> {
    Arc::new(AuthorKey::from_seed([seed; 32]))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Sends a file to whoever connects.
fn bare_server(path: &Path) {
    runtime().block_on(async {
        let endpoint = Endpoint::bind(key(1), "127.0.0.1:0".parse().unwrap()).unwrap();
        println!("{}", endpoint.local_addr());
        let connection = endpoint.accept().await.unwrap().handshake().await.unwrap();
        let mut stream = connection.quinn().open_uni().await.unwrap();
        let mut file = File::open(path).unwrap();
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = tokio::task::block_in_place(|| file.read(&mut chunk)).unwrap();
            if read == 0 {
                break;
            }
            chunk.truncate(read);
            stream.write_chunk(chunk.into()).await.unwrap();
        }
        stream.finish().unwrap();
        connection.quinn().closed().await;
    });
}

/// The seconds from the dial to the end of the sync. Hashing and writing have a thread of their own.
fn bare_quinn(from: &Path, to: &PathBuf, id: &blake3::Hash) -> f64 {
    let (_server, address) = first_line(Command::new(std::env::current_exe().unwrap()).arg("bare").arg(from));
    let address = address.trim().to_owned();
    let _ = std::fs::remove_file(to);
    let began = Instant::now();
    let (chunks, to_write) = mpsc::sync_channel::<bytes::Bytes>(64);
    let to = to.clone();
    let writer = std::thread::spawn(move || {
        let (mut file, mut hasher) = (File::create(to).unwrap(), blake3::Hasher::new());
        for chunk in to_write {
            hasher.update(&chunk);
            file.write_all(&chunk).unwrap();
        }
        file.sync_all().unwrap();
        hasher.finalize()
    });
    let runtime = runtime();
    let (endpoint, connection) = runtime.block_on(async {
        let endpoint = Endpoint::client_only(key(2)).unwrap();
        let connection = endpoint.dial(key(1).author(), &[address], Duration::from_secs(5)).await.unwrap();
        let mut stream = connection.quinn().accept_uni().await.unwrap();
        while let Some(chunk) = stream.read_chunk(CHUNK, true).await.unwrap() {
            tokio::task::block_in_place(|| chunks.send(chunk.bytes)).unwrap();
        }
        (endpoint, connection)
    });
    drop(chunks);
    assert_eq!(writer.join().unwrap(), *id);
    let seconds = began.elapsed().as_secs_f64();
    connection.close(0, "");
    runtime.block_on(endpoint.wait_idle(Duration::from_millis(200)));
    seconds
}
