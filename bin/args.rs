//! What can be typed.

mod files;
mod homes;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand};

pub(crate) use files::{
    CheckoutArgs, CommitArgs, HeadCommand, HistoryArgs, ImportCommand, ImportGitArgs, MergeArgs,
};
pub(crate) use homes::{HomeCommand, MarryArgs, MoveArgs};

/// A content-addressed log sync node.
#[derive(Debug, Parser)]
#[command(name = "madake", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Args {
    /// The home folder
    #[arg(long, global = true, env = "MADAKE_HOME", value_name = "DIR", overrides_with = "home")]
    pub(crate) home: Option<OsString>,
    /// One JSON object a line, for programs; on stderr where bytes go to stdout
    #[arg(long, global = true, overrides_with = "json")]
    pub(crate) json: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, overrides_with = "quiet", conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more of what happens (twice: everything)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a home: two keys, an empty store, a configuration
    Init {
        /// What to call this node
        #[arg(long)]
        nick: Option<String>,
        /// Name the author of another home as recovery key, in the first entry of the control log: its word is stronger
        /// than this author's own
        #[arg(long, value_name = "AUTHOR", conflicts_with = "clone")]
        recovery: Option<String>,
        /// Give a home that is a copy a node key of its own
        #[arg(long, conflicts_with = "nick")]
        clone: bool,
    },
    /// Who this node is, and its ticket
    Id,
    /// Run the node until it is stopped; makes the home first if there is none
    Serve {
        /// `host:port` to listen on; without it what config.toml says, else port 6232 of all addresses
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
        /// Talk to every node that comes, known or not: it is given what is kept, and may bring entries of authors
        /// who are kept
        #[arg(long)]
        open: bool,
    },
    /// How the node is: peers, counts, disk
    Status,
    /// Why something is as it is, or not here: what is known of it, and what to type next
    Why {
        /// AUTHOR/LOG, AUTHOR/LOG@SEQ, a file's name, a peer, an author, or any id or its first 6 digits or more
        target: String,
    },
    /// Logs: append, list, show, export, import, verify
    #[command(subcommand)]
    Log(LogCommand),
    /// Logs with two histories: list, show, export a proof, verify one
    #[command(subcommand)]
    Fork(ForkCommand),
    /// Store files as objects; the id is b3sum's
    Put {
        /// Files, `-` for stdin
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Write an object to stdout or a file
    Get {
        /// The object's id, or its first 6 digits or more
        id: String,
        /// Where to write it; stdout without it
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Make a new version of a file, or of every changed file in a folder
    Commit(CommitArgs),
    /// The newest versions of names, and what to do where they diverged
    #[command(subcommand)]
    Head(HeadCommand),
    /// Nodes that agree on heads: make a cluster, add members, join one
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// The versions of a name, newest first
    History(HistoryArgs),
    /// What changed between two versions of a file
    Diff {
        /// The file's name; ~AUTHOR/NAME for somebody's own
        name: String,
        /// The older commit; the one before the newest, if neither is given
        a: Option<String>,
        /// The newer commit; the newest, if it is not given
        b: Option<String>,
        /// Whose version of the name
        #[arg(long)]
        author: Option<String>,
    },
    /// One commit
    Show {
        /// The commit's id, or its first 6 digits or more
        commit: String,
    },
    /// Write the newest version of a file, or of all below a prefix
    Checkout(CheckoutArgs),
    /// Authors whose keys this home holds
    #[command(subcommand)]
    Author(AuthorCommand),
    /// Peers: who this node talks to
    #[command(subcommand)]
    Peer(PeerCommand),
    /// The node that is an author's home: invite, marry, status, move, leave, release, object
    #[command(subcommand)]
    Home(HomeCommand),
    /// Keep an author's logs, and ask peers for them
    Follow {
        /// The author's key, or its first 6 digits or more if it is known here
        author: String,
    },
    /// Refuse an author's logs; what is here stays until `gc`, and `follow` undoes it
    Block {
        /// The author's key, or its first 6 digits or more
        author: String,
    },
    /// How much of an author is kept at most; without options, how much is kept of it, and may be
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Quota {
        #[command(subcommand)]
        command: Option<QuotaCommand>,
        /// The author's key, or its first 6 digits or more
        #[arg(required = true)]
        author: Option<String>,
        /// Bytes of entries, payloads and files; K, M, G and T are times 1024
        #[arg(long, value_name = "N", value_parser = byte_count)]
        bytes: Option<u64>,
        /// Entries
        #[arg(long, value_name = "N")]
        entries: Option<u64>,
        /// No limit
        #[arg(long, conflicts_with_all = ["bytes", "entries", "default"])]
        none: bool,
        /// What config.toml says for all (`quota_bytes`, `quota_entries`)
        #[arg(long, conflicts_with_all = ["bytes", "entries"])]
        default: bool,
    },
    /// Which schemas are kept; without any listed, all are. And which objects of versions
    #[command(args_conflicts_with_subcommands = true)]
    Interest {
        /// Without one, they are listed
        #[command(subcommand)]
        command: Option<InterestCommand>,
        /// Of which versions of others' files the bytes are kept: `all`, `heads` (the newest of each name) or
        /// `none`; `gc` takes away what is here and not kept any more
        #[arg(long, value_name = "WHICH", value_parser = ["all", "heads", "none"])]
        objects: Option<String>,
    },
    /// Payloads of entries
    #[command(subcommand)]
    Payload(PayloadCommand),
    /// Keep an object for its own sake no longer; what nothing else names is gone then
    Unput {
        /// The object's id, or its first 6 digits or more
        id: String,
    },
    /// Take away what nothing names, and give the space of what is gone back to the disk
    Gc {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Read and check everything that is kept
    Fsck {
        /// Mend what can be mended: what is damaged is asked for again
        #[arg(long)]
        repair: bool,
    },
    /// Take what a peer has and this node lacks
    Pull(SyncArgs),
    /// Give a peer what it lacks and keeps
    Push(SyncArgs),
    /// Both: pull and push in one session
    Sync(SyncArgs),
    /// Write everything of this home's authors into one file, to move or back up
    Export {
        /// The file
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// With the secret keys, under a passphrase
        #[arg(long)]
        with_keys: bool,
        /// Take the passphrase from the first line of this file, and ask nobody
        #[arg(long, value_name = "FILE", requires = "with_keys")]
        passphrase_file: Option<PathBuf>,
    },
    /// Take in what `export` wrote: into a new home, one without logs, or one of the same author. Or a git history
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Import {
        #[command(subcommand)]
        command: Option<ImportCommand>,
        /// The file
        #[arg(required = true)]
        file: Option<PathBuf>,
        /// Take the passphrase of its keys from the first line of this file, and ask nobody
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Live through a simulated world in which much goes wrong, and check that no rule is broken
    #[cfg(feature = "sim")]
    Sim(SimArgs),
    /// Write the completions for a shell to stdout
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder
    Man {
        /// The folder; it is made if it is not there
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Sign and store entries; without files, stdin is the payload
    Append {
        /// What kind of entries: 1-64 of a-z 0-9 . _ / -
        schema: String,
        /// Payloads, one entry each; `-` for stdin
        files: Vec<PathBuf>,
        /// Every line is an entry, acknowledged when it is durable
        #[arg(long)]
        lines: bool,
        /// Whose log: the name or id of an author whose key is here
        #[arg(long)]
        author: Option<String>,
        /// The last entry ends the log
        #[arg(long)]
        end: bool,
        /// Write at once and ask nobody, also after a restore: if the original was written to since, the log forks
        #[arg(long)]
        accept_fork_risk: bool,
    },
    /// The logs that are held
    List {
        /// Only this author's
        #[arg(long)]
        author: Option<String>,
        /// Only of this schema
        #[arg(long)]
        schema: Option<String>,
    },
    /// Entries of a log
    Show {
        /// AUTHOR/LOG, AUTHOR/LOG@SEQ or AUTHOR/LOG@SEQ..SEQ; LOG is a number or a schema
        log: String,
        /// With their payloads
        #[arg(long)]
        payload: bool,
    },
    /// Write logs into one file that a stranger can verify
    Export {
        /// AUTHOR/LOG; LOG is a number or a schema
        #[arg(required = true)]
        logs: Vec<String>,
        /// The file, `-` for stdout
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Take the logs of a file in: each entry is verified, and kept though its author is not followed
    Import {
        /// What `log export` wrote, `-` for stdin
        file: PathBuf,
    },
    /// Check every link, signature and payload again
    Verify {
        /// AUTHOR/LOG; all logs without it
        log: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ForkCommand {
    /// The logs that are known to be forked
    List,
    /// The branches of a log side by side, from the last entry that they share
    Show {
        /// AUTHOR/LOG; LOG is a number or a schema
        log: String,
        /// Draw them into this file as a graph for Graphviz, `-` for stdout
        #[arg(long, value_name = "FILE", conflicts_with = "svg")]
        dot: Option<PathBuf>,
        /// Draw them into this file as a picture, `-` for stdout
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Say which branch of a forked log of yours stands; the others are dropped, and kept beside it
    Resolve {
        /// AUTHOR/LOG; LOG is a number or a schema
        log: String,
        /// `home`: the branch that your home has. Or an entry's id, or the first digits of it: it stands with all before
        /// it, and what was written behind it
        #[arg(long, value_name = "home|ENTRY")]
        keep: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Write the entries of dropped branches again, behind the one that stands
    Salvage {
        /// AUTHOR/LOG; LOG is a number or a schema
        log: String,
    },
    /// Write the proof that a log is forked, which anybody can check
    Export {
        /// AUTHOR/LOG; LOG is a number or a schema
        log: String,
        /// The file, `-` for stdout
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Check a proof; needs no home and no node
    Verify {
        /// What `fork export` wrote, `-` for stdin
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PayloadCommand {
    /// Give up a payload: it is gone from the disk, and not wanted again; the entry stays
    Drop {
        /// AUTHOR/LOG@SEQ, or the entry's id
        entry: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a cluster of this node alone
    Init,
    /// Let another node become a member; its owner has to type `cluster join` too, before or after
    Add {
        /// What `madake id` prints at the other node, or a peer's name
        ticket: String,
        /// What to call it, if it is no peer yet
        #[arg(long)]
        name: Option<String>,
    },
    /// Make a node a member no more; `self` for this one
    Remove {
        /// A member's id, or its name or the first 6 digits of its id or more, if it is a peer
        node: String,
    },
    /// Become a member of another node's cluster; its owner has to type `cluster add` too, before or after
    Join {
        /// What `madake id` prints at a member, or a peer's name
        ticket: String,
        /// What to call it, if it is no peer yet
        #[arg(long)]
        name: Option<String>,
    },
    /// Who the members are, and who of them is in reach
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthorCommand {
    /// The authors and their names
    List,
    /// Make the key of a further author
    New {
        /// What to call it here: 1-32 of a-z 0-9 _ -
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Add a peer, or change its name and addresses
    Add {
        /// What `madake id` prints at the other node
        ticket: String,
        /// What to call it
        #[arg(long)]
        name: Option<String>,
        /// A running node keeps a session with it open, and both push what is new
        #[arg(long, overrides_with = "no_live")]
        live: bool,
        /// It is talked to when asked for only
        #[arg(long)]
        no_live: bool,
        /// Both are servers: silence ends a session after two seconds, and clocks must agree
        #[arg(long, overrides_with = "no_server")]
        server: bool,
        /// They are not
        #[arg(long)]
        no_server: bool,
        /// The code of an invite that its owner made (`madake peer invite`): it adds this node too
        #[arg(long)]
        code: Option<String>,
    },
    /// Make a code with which another node becomes a peer: good once, for 7 days
    #[command(args_conflicts_with_subcommands = true)]
    Invite {
        /// Without one, an invite is made
        #[command(subcommand)]
        command: Option<InviteCommand>,
        /// What to call the peer that brings it
        #[arg(long)]
        name: Option<String>,
    },
    /// All peers
    List,
    /// What a peer may do here: both, unless it is said otherwise
    Allow {
        /// Its name or id
        peer: String,
        /// It is given what is kept here
        #[arg(long, overrides_with = "no_read")]
        read: bool,
        /// It is given nothing
        #[arg(long, overrides_with = "read")]
        no_read: bool,
        /// What it brings is taken, of authors that are kept
        #[arg(long, overrides_with = "no_write")]
        write: bool,
        /// Nothing that it brings is taken
        #[arg(long, overrides_with = "write")]
        no_write: bool,
    },
    /// Talk to a peer no longer
    Remove {
        /// Its name or id
        peer: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuotaCommand {
    /// What is kept of whom, and may be
    List,
}

/// A number of bytes, as a person writes it.
fn byte_count(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no number of bytes, such as 500M");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB") {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// The invites that are still good
    List,
    /// End an invite before its time
    Revoke {
        /// Its code, or what it begins with: 4 letters or more
        code: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum InterestCommand {
    /// The schemas that are kept
    List,
    /// Keep this schema, and only those that are listed
    Add {
        /// Such as `post`; `commit` is that of files
        schema: String,
    },
    /// List a schema no longer; what is here of it stays
    Remove {
        /// A schema that is listed
        schema: String,
    },
    /// Keep all schemas
    All,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SyncArgs {
    /// The peer's name, id or ticket
    pub(crate) peer: String,
    /// Only these schemas (system logs always come along)
    #[arg(long, num_args = 1..)]
    pub(crate) schema: Vec<String>,
    /// Only compare, and say what would come and go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Of each log that is not here yet, take only the newest N entries, at most 10000, with the few older ones that tie
    /// them to the first; a pull without it, or a live link, brings the rest
    #[arg(long, value_name = "N")]
    pub(crate) last: Option<String>,
}

#[cfg(feature = "sim")]
#[derive(Debug, ClapArgs)]
pub(crate) struct SimArgs {
    /// All chance follows from it: the same seed is the same world. Without it, one that is printed
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How many nodes; without it 2 to 5, by the seed
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(2..=8))]
    pub(crate) nodes: Option<u8>,
    /// How many minutes of the world's time things go wrong; without it 1 or 2, by the seed
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) minutes: Option<u32>,
    /// A world of members that agree on heads
    #[arg(long, conflicts_with_all = ["nodes", "minutes"])]
    pub(crate) heads: bool,
}
