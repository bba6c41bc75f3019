//! A move from one home to another, step by step (`docs/forks.md`, "Homes"). Each step may be done again, and what was
//! done is found in the store: whatever is killed meanwhile, the next call goes on. Until the vow is signed the author
//! may stay; after that the way is forward.

use std::sync::Arc;

use hyper::Response;
use madake_log::AuthorId;
use madake_store::{Author, Change, Marriage, MoveStep, Moving};
use madake_sync::Bounded;
use madake_sync::home::{HomeRequest, Step, steps};

use super::homes::{
    accept, adopted, ask_on, code_of, enter, named, old_home_is_away, own_json, passphrase_of, release,
    second, talk, unless_contested, vow_once, with_news,
};
use super::peers::dial;
use super::{ApiError, Body, Query, object};
use crate::driver::wall_clock;
use crate::moments::passes;
use crate::net::NodeId;
use crate::shell::Shell;
use crate::work;

/// So often everything is copied again because the author has written meanwhile.
const COPIES: usize = 4;

/// `POST /v1/home/move[?ticket=T][&code=C][&passphrase=P][&author=A][&yes=1][&abort=1]` → `Marriage`
///
/// Without a ticket a move that was cut off goes on; with `abort` one whose vow is not signed ends.
pub(super) async fn move_to(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let author = shell.resolve_writer(query.get("author"))?;
    let begun = work::in_place(|| shell.store().moving(author.id()))?;
    if query.flag("abort") {
        return abort(&shell, &author, begun).await;
    }
    let to = match (query.get("ticket"), &begun) {
        (Some(ticket), _) => shell.resolve_peer(ticket)?,
        (None, Some(moving)) => (moving.to, moving.addresses.clone()),
        (None, None) => {
            return Err(ApiError::usage("no move has begun: to which home?").hint("madake home move TICKET"));
        }
    };
    if let Some(other) = begun.filter(|moving| moving.to != to.0) {
        return Err(under_way(&other));
    }
    let (code, passphrase) = (code_of(&query), passphrase_of(&query)?);
    let marriage = with_news(&shell, author.id(), to.0).await?;
    let other = marriage.home.as_ref().filter(|home| home.node != to.0).map(|home| home.node);
    if other.is_none() && named(&marriage, to.0).is_none() {
        return Err(ApiError::new(409, "no-marriage", "there is no home to move from")
            .hint("madake home marry TICKET"));
    }
    if !query.flag("yes") {
        if let Some(home) = other {
            return Err(second(home, true));
        }
        unless_contested(&marriage)?;
    }
    shell.clear_to_write(&author, false).await?;
    if marriage.home_in_force() == Some(to.0) {
        work::in_place(|| shell.store().apply(vec![Change::Moving(author.id(), None)]))?;
        return adopted(&shell, &author, to.0).await;
    }
    // One that was vowed to and never accepted has nothing to let go.
    let old = marriage.home_in_force();
    let from = other.unwrap_or(to.0);
    let way = Way { shell: &shell, author: &author, from, old, to, since: wall_clock() };
    way.go(&marriage, code, passphrase).await?;
    work::in_place(|| Ok(object(&own_json(&shell, None, author.id())?)))
}

/// A move that is under way in this call.
struct Way<'a> {
    shell: &'a Shell,
    author: &'a Author,
    from: NodeId,
    /// The home that has to let go.
    old: Option<NodeId>,
    to: (NodeId, Vec<String>),
    since: i64,
}

impl Way<'_> {
    async fn go(
        &self,
        marriage: &Marriage,
        code: Option<String>,
        passphrase: Option<String>,
    ) -> Result<(), ApiError> {
        let (shell, author, to) = (self.shell, self.author.id(), (self.to.0, self.to.1.as_slice()));
        let mut vow = named(marriage, to.0);
        for step in steps(vow.is_some(), self.old.is_some()) {
            match (step, self.old) {
                (Step::Enter, _) => {
                    enter(shell, author, to, code.clone(), passphrase.clone()).await?;
                    if vow.is_none() {
                        self.step(MoveStep::Entered)?;
                    }
                }
                (Step::Copy, _) => {
                    self.copy().await?;
                    self.step(MoveStep::Copied)?;
                }
                (Step::Freeze, Some(old)) => {
                    let frozen = self.freeze(old, passphrase.clone()).await;
                    frozen.map_err(|error| old_home_is_away(error, old))?;
                }
                (Step::CopyRest, _) => {
                    self.copy().await?;
                    self.step(MoveStep::Frozen)?;
                }
                (Step::Vow, _) => {
                    vow = Some(work::in_place(|| vow_once(shell, self.author, to.0, to.1))?);
                    self.step(MoveStep::Vowed)?;
                }
                (Step::Accept, _) => {
                    let Some(vow) = vow else { continue };
                    talk(shell, to.0).await?;
                    accept(shell, author, to, vow).await?;
                    self.step(MoveStep::Accepted)?;
                }
                (Step::Release, Some(old)) => {
                    let Some(vow) = vow else { continue };
                    let released = release(shell, self.author, old, vow, passphrase.clone()).await;
                    released.map_err(|error| old_home_is_away(error, old))?;
                    passes("released");
                    talk(shell, to.0).await?; // the new one hears of it
                }
                (Step::Freeze | Step::Release, None) => {}
            }
        }
        work::in_place(|| shell.store().apply(vec![Change::Moving(author, None)]))?;
        Ok(())
    }

    /// What the old home has more comes here, all goes to the new one, and that says whether it has the same.
    async fn copy(&self) -> Result<(), ApiError> {
        let (shell, author) = (self.shell, self.author.id());
        let mut refused = None;
        for _ in 0..COPIES {
            if let Some(old) = self.old {
                talk(shell, old).await.map_err(|error| old_home_is_away(error, old))?;
            }
            talk(shell, self.to.0).await?;
            let digest = work::in_place(|| shell.digest_of(author))?;
            let holds = HomeRequest::Holds { author, count: digest.count, sum: digest.sum() };
            match ask_on(dial(shell, self.to.0, &self.to.1, false).await?, &holds).await {
                Ok(()) => return Ok(()),
                Err(error) if error.code == "home" => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        let why = refused.map_or_else(String::new, |error| error.message);
        let message = format!("not all could be copied, and nothing was signed: {why}");
        Err(ApiError::new(409, "home", message).hint(
            "does the new home keep all schemas, and is there room (`madake quota`, there)? `madake home move --abort` stays",
        ))
    }

    async fn freeze(&self, old: NodeId, passphrase: Option<String>) -> Result<(), ApiError> {
        let passphrase = passphrase.map(|text| Bounded::truncated(text.into_bytes()));
        let request = HomeRequest::Freeze { author: self.author.id(), passphrase };
        let (addresses, server) = work::in_place(|| self.shell.addresses_of(old))?;
        ask_on(dial(self.shell, old, &addresses, server).await?, &request).await
    }

    /// Notes how far it has come.
    fn step(&self, step: MoveStep) -> Result<(), ApiError> {
        let (author, to) = (self.author.id(), self.to.clone());
        work::in_place(|| -> Result<(), ApiError> {
            let before = self.shell.store().moving(author)?;
            let since = before.map_or(self.since, |moving| moving.since);
            let moving = Moving { from: self.from, to: to.0, addresses: to.1, since, step };
            self.shell.store().apply(vec![Change::Moving(author, Some(moving))])?;
            Ok(())
        })?;
        passes(step.as_str());
        Ok(())
    }
}

/// Ends a move whose vow is not signed: nothing has changed then.
async fn abort(shell: &Shell, author: &Author, begun: Option<Moving>) -> Result<Response<Body>, ApiError> {
    let id = author.id();
    let Some(moving) = begun else {
        return Err(ApiError::new(409, "no-move", "no move has begun").hint("madake home status"));
    };
    if named(&work::in_place(|| shell.store().marriage(id))?, moving.to).is_some() {
        let message = format!("the vow to {} is signed: it can't be taken back", moving.to);
        return Err(ApiError::new(409, "vowed", message)
            .hint("`madake home move` brings the move to its end; then `madake home move` goes back"));
    }
    // Where it can't be reached it takes what is new again by itself, when the lease has run out.
    if moving.from != moving.to
        && let Err(error) = thaw(shell, id, moving.from).await
    {
        tracing::warn!(%error, home = %moving.from, "the old home could not be told that the author stays");
    }
    work::in_place(|| {
        shell.store().apply(vec![Change::Moving(id, None)])?;
        Ok(object(&own_json(shell, None, id)?))
    })
}

async fn thaw(shell: &Shell, author: AuthorId, home: NodeId) -> Result<(), ApiError> {
    let (addresses, server) = work::in_place(|| shell.addresses_of(home))?;
    ask_on(dial(shell, home, &addresses, server).await?, &HomeRequest::Thaw { author }).await
}

fn under_way(moving: &Moving) -> ApiError {
    let message = format!("a move to {} has begun, and come to: {}", moving.to, moving.step.as_str());
    ApiError::new(409, "moving", message).hint(match moving.step {
        MoveStep::Vowed | MoveStep::Accepted => "`madake home move` brings it to its end",
        _ => "`madake home move` brings it to its end, `madake home move --abort` ends it",
    })
}
