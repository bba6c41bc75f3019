//! Objects over loopback, from disk to disk with a final sync: `madake pull` and iroh-blobs in turns, in one run. Without
//! relays and without any discovery: both are told the address. Each side is a process of its own. Prints a table.
//!
//! ```text
//! cargo build --release
//! cargo run --release --manifest-path benches/iroh-blobs/Cargo.toml -- target/release/madake
//! MADAKE_MIB=1024 MADAKE_FILES=10000 MADAKE_ROUNDS=3      sizes, and how many turns; the middle one counts
//! ```
//! What is timed begins before the dial, in a process that has its store open, and ends when all is durable. madake
//! brings a commit and a signed entry with each file, iroh-blobs the hash sequence.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use iroh::endpoint::{Endpoint, RelayMode, presets};
use iroh::protocol::Router;
use iroh::{EndpointAddr, EndpointId};
use iroh_blobs::hashseq::HashSeq;
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::{ALPN, BlobsProtocol, Hash, HashAndFormat};
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of a small object.
const SMALL: usize = 4_096;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["give", store, source] => runtime()?.block_on(give(Path::new(store), Path::new(source))),
        ["take", store, what, id, address] => {
            let what: HashAndFormat = what.parse()?;
            let from = EndpointAddr::new(id.parse::<EndpointId>()?).with_ip_addr(address.parse()?);
            runtime()?.block_on(take(Path::new(store), what, from))
        }
        [madake] => compare(madake),
        _ => Err("give the path of the program madake".into()),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn compare(madake: &str) -> Result<()> {
    let number = |name: &str, default: u64| -> Result<u64> {
        Ok(std::env::var(name).ok().map(|text| text.parse()).transpose()?.unwrap_or(default))
    };
    let (mib, files) = (number("MADAKE_MIB", 1_024)?, number("MADAKE_FILES", 10_000)?);
    let rounds = number("MADAKE_ROUNDS", 3)?.max(1);
    let folder = tempfile::tempdir()?;
    let (big, many) = (folder.path().join("big"), folder.path().join("many"));
    let mut file = File::create(&big)?;
    for i in 0..mib {
        file.write_all(&noise(i, 1 << 20))?;
    }
    file.sync_all()?;
    std::fs::create_dir(&many)?;
    for i in 0..files {
        std::fs::write(many.join(i.to_string()), noise(i, SMALL))?;
    }
    println!(
        "| from disk to disk, synced | iroh-blobs, s | madake, s | madake's rate, of that of iroh-blobs | goal |"
    );
    println!("|---|---:|---:|---:|---:|");
    let loads =
        [(&big, format!("one object of {mib} MiB"), 1), (&many, format!("{files} objects of 4 KiB"), 3)];
    for (source, name, goal) in loads {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let place = tempfile::tempdir_in(folder.path())?;
            theirs.push(by_iroh(place.path(), source)?);
            drop(place);
            let place = tempfile::tempdir_in(folder.path())?;
            ours.push(by_madake(madake, place.path(), source)?);
            eprintln!(
                "{name}, round {round}: iroh-blobs {:.2} s, madake {:.2} s",
                last(&theirs),
                last(&ours)
            );
        }
        let (theirs, ours) = (median(theirs), median(ours));
        println!("| {name} | {theirs:.2} | {ours:.2} | {:.2} | {goal} |", theirs / ours);
    }
    Ok(())
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn last(seconds: &[f64]) -> f64 {
    seconds.last().copied().unwrap_or_default()
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a process, and waits for the first line that it prints.
fn start(command: &mut Command) -> Result<(Running, String)> {
    let mut running = Running(command.stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    let output = running.0.stdout.take().ok_or("no output")?;
    BufReader::new(output).read_line(&mut line)?;
    Ok((running, line))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} failed").into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn by_iroh(folder: &Path, source: &Path) -> Result<f64> {
    let me = std::env::current_exe()?;
    let (_giver, line) = start(Command::new(&me).arg("give").arg(folder.join("a")).arg(source))?;
    let said = output(Command::new(&me).arg("take").arg(folder.join("b")).args(line.split_whitespace()))?;
    Ok(said.trim().parse()?)
}

async fn endpoint() -> Result<Endpoint> {
    let builder = Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Disabled).clear_ip_transports();
    Ok(builder.bind_addr("127.0.0.1:0")?.bind().await?)
}

/// Gives a file, or the files of a folder. Prints what is to be asked for, and where.
async fn give(store: &Path, source: &Path) -> Result<()> {
    let store = FsStore::load(store).await?;
    let what = if source.is_dir() {
        let mut hashes: Vec<Hash> = Vec::new();
        for file in std::fs::read_dir(source)? {
            hashes.push(store.blobs().add_bytes(std::fs::read(file?.path())?).await?.hash);
        }
        let sequence: HashSeq = hashes.into_iter().collect();
        HashAndFormat::hash_seq(store.blobs().add_bytes(sequence.into_inner()).await?.hash)
    } else {
        HashAndFormat::raw(store.blobs().add_path(std::path::absolute(source)?).await?.hash)
    };
    let router = Router::builder(endpoint().await?).accept(ALPN, BlobsProtocol::new(&store, None)).spawn();
    let address =
        router.endpoint().bound_sockets().into_iter().find(SocketAddr::is_ipv4).ok_or("no address")?;
    println!("{what} {} {address}", router.endpoint().id());
    std::future::pending::<()>().await; // until it is killed
    Ok(())
}

/// Fetches it, and prints how many seconds that took.
async fn take(folder: &Path, what: HashAndFormat, from: EndpointAddr) -> Result<()> {
    let store = FsStore::load(folder).await?;
    let endpoint = endpoint().await?;
    let begun = Instant::now();
    let connection = endpoint.connect(from, ALPN).await?;
    store.remote().fetch(connection, what).await?;
    store.sync_db().await?;
    store.shutdown().await?;
    sync_all(folder)?;
    println!("{}", begun.elapsed().as_secs_f64());
    endpoint.close().await;
    Ok(())
}

/// Makes all files in a folder durable.
fn sync_all(folder: &Path) -> Result<()> {
    for item in std::fs::read_dir(folder)? {
        let path = item?.path();
        if path.is_dir() { sync_all(&path)? } else { File::open(&path)?.sync_all()? }
    }
    Ok(File::open(folder)?.sync_all()?)
}

fn by_madake(program: &str, folder: &Path, source: &Path) -> Result<f64> {
    let (a, b) = (folder.join("a"), folder.join("b"));
    let run = |home: &Path, args: &[&str]| -> Result<Value> {
        let said = output(Command::new(program).arg("--home").arg(home).arg("--json").args(args))?;
        Ok(said.lines().last().map(serde_json::from_str).transpose()?.unwrap_or_default())
    };
    let text = |value: &Value, name: &str| -> Result<String> {
        Ok(value[name].as_str().ok_or_else(|| format!("no {name} in {value}"))?.to_owned())
    };
    let author = text(&run(&a, &["init"])?, "author")?;
    run(&b, &["init"])?;
    let path = source.to_str().ok_or("a path that is not UTF-8")?;
    match source.is_dir() {
        true => run(&a, &["commit", "--tree", path, "--prefix", "many"])?,
        false => run(&a, &["commit", "big", path])?,
    };
    let serve = ["--json", "serve", "--listen", "127.0.0.1:0"];
    let (_daemon, ready) = start(Command::new(program).arg("--home").arg(&a).args(serve))?;
    let ready: Value = serde_json::from_str(&ready)?;
    run(&b, &["peer", "add", &text(&ready, "ticket")?, "--name", "a"])?;
    run(&a, &["peer", "add", &text(&run(&b, &["id"])?, "ticket")?])?;
    run(&b, &["follow", &author])?;
    let result = run(&b, &["pull", "a"])?;
    if result["missing"].as_array().is_none_or(|missing| !missing.is_empty()) {
        return Err(format!("not all came: {result}").into());
    }
    result["seconds"].as_f64().ok_or_else(|| format!("no seconds in {result}").into())
}
