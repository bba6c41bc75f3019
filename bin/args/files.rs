//! What can be typed about files: versions, heads, histories.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Turn a git history into commits, a version per file that a git commit changed. Again, it goes on
    Git(ImportGitArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ImportGitArgs {
    /// The folder of a work tree, its .git, or a bare repository
    pub(crate) repo: PathBuf,
    /// Whose history: a branch, a tag or a whole commit id; HEAD without it
    #[arg(long = "ref", value_name = "REF")]
    pub(crate) reference: Option<String>,
    /// Put this in front of the names: PREFIX/path/in/repository
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Who signs: the name or id of an author whose key is here
    #[arg(long)]
    pub(crate) author: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CommitArgs {
    /// The file's name in the history
    #[arg(required_unless_present = "tree", conflicts_with = "tree")]
    pub(crate) name: Option<String>,
    /// The file, `-` for stdin
    #[arg(required_unless_present = "tree", conflicts_with = "tree")]
    pub(crate) file: Option<PathBuf>,
    /// What to say about it
    #[arg(short, long, default_value = "", value_name = "MSG")]
    pub(crate) message: String,
    /// The commits that this version merges, besides following the head
    #[arg(long, value_name = "COMMIT", num_args = 1.., conflicts_with = "tree")]
    pub(crate) merge: Vec<String>,
    /// Commit every regular file below this folder that has changed
    #[arg(long, value_name = "DIR")]
    pub(crate) tree: Option<PathBuf>,
    /// Who signs: the name or id of an author whose key is here
    #[arg(long)]
    pub(crate) author: Option<String>,
    /// Put this in front of the names: PREFIX/relative/path
    #[arg(long, requires = "tree")]
    pub(crate) prefix: Option<String>,
    /// Write at once and ask nobody, also after a restore: if the original was written to since, the log forks
    #[arg(long)]
    pub(crate) accept_fork_risk: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct HistoryArgs {
    /// The file's name; ~AUTHOR/NAME for somebody's own
    pub(crate) name: String,
    /// Whose version of the name; with --graph and without this, the cluster's with its side branches, or everybody's
    #[arg(long)]
    pub(crate) author: Option<String>,
    /// Also what was merged, and how it hangs together
    #[arg(long)]
    pub(crate) graph: bool,
    /// Write the graph into this file, for Graphviz
    #[arg(long, value_name = "FILE")]
    pub(crate) dot: Option<PathBuf>,
    /// Write the graph into this file, as a picture
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MergeArgs {
    /// The file's name
    pub(crate) name: String,
    /// The commit to merge, or its first 6 digits or more; without it, the one side branch that lost, or, of names of
    /// one's own, the one head of another author that is not merged yet
    #[arg(long, value_name = "COMMIT")]
    pub(crate) with: Option<String>,
    /// Take the bytes of one side, and join both histories
    #[arg(long, value_name = "SIDE", value_parser = ["mine", "theirs"])]
    pub(crate) take: Option<String>,
    /// Only write what a merge gives, with markers around what both changed, into this file, `-` for stdout
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["take", "message"])]
    pub(crate) output: Option<PathBuf>,
    /// What to say about it
    #[arg(short, long, value_name = "MSG")]
    pub(crate) message: Option<String>,
    /// Who merges: the name or id of an author whose key is here
    #[arg(long)]
    pub(crate) author: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HeadCommand {
    /// All heads, or those whose name begins with PREFIX
    List {
        /// What the names begin with
        prefix: Option<String>,
        /// Only this author's
        #[arg(long)]
        author: Option<String>,
    },
    /// One head
    Show {
        /// The file's name
        name: String,
        /// Whose version of the name
        #[arg(long)]
        author: Option<String>,
        /// Ask the members what is agreed at this moment, rather than say what is known here
        #[arg(long, conflicts_with = "author")]
        ask: bool,
    },
    /// Make a commit of a side branch the head; the head before it becomes a side branch
    Take {
        /// The file's name
        name: String,
        /// The commit, or the first 6 digits of its id or more
        commit: String,
    },
    /// Forget a side branch; its commits stay in their author's log
    Drop {
        /// The file's name
        name: String,
        /// The branch's newest commit, or the first 6 digits of its id or more
        commit: String,
    },
    /// Give names of one's own, made before joining, to the cluster
    Publish {
        /// A name, or what is in front of `/` in several
        prefix: String,
        /// Whose: the name or id of an author whose key is here
        #[arg(long)]
        author: Option<String>,
    },
    /// Merge another version into one's own, or a side branch into the head: by lines, from what both have in common
    Merge(MergeArgs),
    /// Say that a name is deleted; its versions stay
    Delete {
        /// The file's name
        name: String,
        /// What to say about it
        #[arg(short, long, default_value = "", value_name = "MSG")]
        message: String,
        /// Whose: the name or id of an author whose key is here
        #[arg(long)]
        author: Option<String>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CheckoutArgs {
    /// The file's name
    #[arg(required_unless_present = "tree", conflicts_with = "tree")]
    pub(crate) name: Option<String>,
    /// All names below this prefix
    #[arg(long, value_name = "PREFIX")]
    pub(crate) tree: Option<String>,
    /// The file to write, `-` for stdout; with --tree, the folder
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Whose version
    #[arg(long)]
    pub(crate) author: Option<String>,
    /// Write into a folder that is not empty
    #[arg(long)]
    pub(crate) force: bool,
}
