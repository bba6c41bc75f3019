//! What can be typed about homes.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum HomeCommand {
    /// Make a code with which one author may have this node as home; good once, for 7 days
    Invite,
    /// Make another node this author's home
    Marry(MarryArgs),
    /// Who is whose home, and what is waited for
    Status {
        /// Of one author, whoever it is: the author's key, or its first 6 digits or more
        author: Option<String>,
        /// Ask this node too whose home it is: a peer's name, or a ticket. An old home says where the author has moved
        #[arg(long, value_name = "PEER", requires = "author")]
        at: Option<String>,
    },
    /// Go from one home to another: copy, freeze, vow, release, acceptance; a move that was cut off goes on where it ended
    Move(MoveArgs),
    /// Go from the home, and have none
    Leave {
        /// Who goes: the name or id of an author whose key is here
        #[arg(long)]
        author: Option<String>,
        /// Take the second factor from the first line of this file
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// Ask nothing
        #[arg(long)]
        yes: bool,
    },
    /// As the owner of a home: give an author up, who can then name another home without being asked here
    Release {
        /// The author's key, or its first 6 digits or more
        author: String,
        /// Ask nothing
        #[arg(long)]
        yes: bool,
    },
    /// As the owner of a home: object to a vow that is to take this home's place without its release
    Object {
        /// The author's key, or its first 6 digits or more
        author: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MarryArgs {
    /// The node's ticket, as `madake home invite` or `madake id` prints it there; or the name of a peer
    pub(crate) ticket: String,
    /// The code that its owner made, or the token that all members know
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// Who marries: the name or id of an author whose key is here
    #[arg(long)]
    pub(crate) author: Option<String>,
    /// Set a second factor, from the first line of this file: without it nobody, not even with this author's key,
    /// leaves the home
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Ask nothing, also if the author has another home
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MoveArgs {
    /// The next home's ticket, as `madake home invite` or `madake id` prints it there; or the name of a peer. Without it
    /// a move that was cut off goes on
    pub(crate) ticket: Option<String>,
    /// End a move whose vow is not signed yet: the author stays, and nothing has changed
    #[arg(long, conflicts_with_all = ["ticket", "code", "passphrase_file"])]
    pub(crate) abort: bool,
    /// The code that its owner made, or the token that all members know
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// Who moves: the name or id of an author whose key is here
    #[arg(long)]
    pub(crate) author: Option<String>,
    /// The second factor that was set at the old home, from the first line of this file; it is set at the new one too
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Ask nothing
    #[arg(long)]
    pub(crate) yes: bool,
}
