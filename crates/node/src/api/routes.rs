//! Every request that is answered, in one table: the dispatcher goes by it, and `docs/openapi.json` is held
//! against it.

use std::pin::Pin;

use hyper::{Method, Response};

use super::{
    ApiError, Body, Call, bundle, cluster, export, files, forks, given, heads, heal, homes, invites, logs,
    merge, moving, node, peers, policy, quota, sync, upkeep, why,
};

type Answer = Result<Response<Body>, ApiError>;

/// One kind of request.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path; one part of it may be `{id}`, which stands for any part.
    pub path: &'static str,
    handler: Handler,
}

enum Handler {
    /// Looks names up before the answer begins, which may read the disk.
    Reads(fn(Call) -> Answer),
    /// Goes on while it answers.
    Runs(fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>>),
}

/// Every route there is.
pub static ROUTES: &[Route] = &[
    reads(Method::GET, "/v1/id", |call| node::id(&call.shell)),
    runs(Method::GET, "/v1/status", |call| Box::pin(node::status(call.shell))),
    runs(Method::GET, "/v1/why", |call| Box::pin(why::why(call.shell, call.query))),
    reads(Method::GET, "/v1/authors", |call| node::authors(&call.shell)),
    runs(Method::POST, "/v1/authors", |call| Box::pin(node::new_author(call.shell, call.query))),
    runs(Method::POST, "/v1/append", |call| Box::pin(logs::append(call.shell, call.query, call.body))),
    reads(Method::GET, "/v1/logs", |call| logs::list(call.shell, &call.query)),
    reads(Method::GET, "/v1/entries", |call| logs::show(call.shell, &call.query)),
    reads(Method::GET, "/v1/verify", |call| logs::verify(call.shell, &call.query)),
    reads(Method::GET, "/v1/forks", |call| forks::list(call.shell)),
    reads(Method::GET, "/v1/fork", |call| forks::show(call.shell, &call.query)),
    reads(Method::GET, "/v1/fork/proof", |call| forks::proof(call.shell, &call.query)),
    runs(Method::POST, "/v1/fork/resolve", |call| Box::pin(heal::resolve(call.shell, call.query))),
    reads(Method::POST, "/v1/fork/salvage", |call| heal::salvage(call.shell, &call.query)),
    reads(Method::GET, "/v1/bundle", |call| bundle::export(call.shell, &call.query)),
    reads(Method::POST, "/v1/bundle", |call| Ok(bundle::import(call.shell, call.body))),
    runs(Method::POST, "/v1/export", |call| Box::pin(export::export(call.shell, call.body))),
    reads(Method::POST, "/v1/import", |call| Ok(export::import(call.shell, call.body))),
    reads(Method::POST, "/v1/objects", |call| Ok(files::put(call.shell, call.body))),
    reads(Method::GET, "/v1/objects/{id}", |call| files::get(&call.shell, &call.id)),
    runs(Method::POST, "/v1/commits", |call| Box::pin(files::commit(call.shell, call.query, call.body))),
    reads(Method::POST, "/v1/commits/given", |call| given::commit(call.shell, &call.query, call.body)),
    runs(Method::POST, "/v1/commits/missing", |call| Box::pin(given::missing(call.shell, call.body))),
    reads(Method::GET, "/v1/commits/{id}", |call| files::show(&call.shell, &call.id)),
    reads(Method::GET, "/v1/heads", |call| heads::list(call.shell, &call.query)),
    runs(Method::GET, "/v1/head", |call| Box::pin(heads::show(call.shell, call.query))),
    runs(Method::POST, "/v1/head/take", |call| Box::pin(heads::take(call.shell, call.query))),
    runs(Method::POST, "/v1/head/drop", |call| Box::pin(heads::drop_side(call.shell, call.query))),
    runs(Method::POST, "/v1/head/delete", |call| Box::pin(heads::delete(call.shell, call.query))),
    runs(Method::POST, "/v1/head/publish", |call| {
        Box::pin(heads::publish(call.shell, call.query, call.body))
    }),
    runs(Method::GET, "/v1/cluster", |call| Box::pin(cluster::status(call.shell))),
    runs(Method::POST, "/v1/cluster/init", |call| Box::pin(cluster::init(call.shell))),
    runs(Method::POST, "/v1/cluster/add", |call| Box::pin(cluster::add(call.shell, call.query))),
    runs(Method::POST, "/v1/cluster/remove", |call| Box::pin(cluster::remove(call.shell, call.query))),
    runs(Method::POST, "/v1/cluster/join", |call| Box::pin(cluster::join(call.shell, call.query))),
    runs(Method::GET, "/v1/merge", |call| Box::pin(merge::answer(call.shell, call.query, merge::preview))),
    runs(Method::POST, "/v1/merge", |call| Box::pin(merge::answer(call.shell, call.query, merge::make))),
    reads(Method::GET, "/v1/history", |call| files::history(call.shell, &call.query)),
    reads(Method::GET, "/v1/tree", |call| files::tree(call.shell, &call.query)),
    reads(Method::GET, "/v1/peers", |call| peers::list(&call.shell)),
    runs(Method::POST, "/v1/peers", |call| Box::pin(peers::add(call.shell, call.query))),
    runs(Method::DELETE, "/v1/peers", |call| Box::pin(peers::remove(call.shell, call.query))),
    runs(Method::POST, "/v1/peers/allow", |call| Box::pin(peers::allow(call.shell, call.query))),
    reads(Method::GET, "/v1/invites", |call| invites::list(&call.shell)),
    runs(Method::POST, "/v1/invites", |call| Box::pin(invites::make(call.shell, call.query))),
    runs(Method::DELETE, "/v1/invites", |call| Box::pin(invites::revoke(call.shell, call.query))),
    runs(Method::GET, "/v1/home", |call| Box::pin(homes::status(call.shell, call.query))),
    runs(Method::POST, "/v1/home/invite", |call| Box::pin(homes::invite(call.shell))),
    runs(Method::POST, "/v1/home/marry", |call| Box::pin(homes::marry(call.shell, call.query))),
    runs(Method::POST, "/v1/home/move", |call| Box::pin(moving::move_to(call.shell, call.query))),
    runs(Method::POST, "/v1/home/leave", |call| Box::pin(homes::leave(call.shell, call.query))),
    runs(Method::POST, "/v1/home/release", |call| Box::pin(homes::give_up(call.shell, call.query))),
    runs(Method::POST, "/v1/home/object", |call| Box::pin(homes::object_to(call.shell, call.query))),
    runs(Method::POST, "/v1/follow", |call| Box::pin(policy::follow(call.shell, call.query))),
    runs(Method::POST, "/v1/block", |call| Box::pin(policy::block(call.shell, call.query))),
    runs(Method::GET, "/v1/quota", |call| Box::pin(quota::show(call.shell, call.query))),
    runs(Method::GET, "/v1/quotas", |call| Box::pin(quota::list(call.shell))),
    runs(Method::POST, "/v1/quotas", |call| Box::pin(quota::set(call.shell, call.query))),
    runs(Method::DELETE, "/v1/quotas", |call| Box::pin(quota::unset(call.shell, call.query))),
    reads(Method::GET, "/v1/interest", |call| policy::interest(&call.shell)),
    runs(Method::POST, "/v1/interest", |call| Box::pin(policy::keep(call.shell, call.query))),
    runs(Method::DELETE, "/v1/interest", |call| Box::pin(policy::drop(call.shell, call.query))),
    reads(Method::POST, "/v1/gc", |call| upkeep::collect(call.shell, &call.query)),
    reads(Method::POST, "/v1/payload/drop", |call| upkeep::drop_payload(call.shell, &call.query)),
    reads(Method::POST, "/v1/unput", |call| upkeep::unput(call.shell, &call.query)),
    reads(Method::POST, "/v1/check", |call| upkeep::check(call.shell, &call.query)),
    runs(Method::POST, "/v1/sync", |call| Box::pin(sync::run(call.shell, call.query))),
];

const fn reads(method: Method, path: &'static str, handler: fn(Call) -> Answer) -> Route {
    Route { method, path, handler: Handler::Reads(handler) }
}

const fn runs(
    method: Method,
    path: &'static str,
    handler: fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>>,
) -> Route {
    Route { method, path, handler: Handler::Runs(handler) }
}

impl Route {
    pub(super) async fn answer(&self, call: Call) -> Answer {
        match self.handler {
            Handler::Reads(handler) => crate::work::in_place(|| handler(call)),
            Handler::Runs(handler) => handler(call).await,
        }
    }

    /// What stands for `{id}` in this path (empty, if nothing does), if the path is this route's.
    fn fits<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (mut id, mut parts) = ("", path.split('/'));
        for expected in self.path.split('/') {
            let part = parts.next()?;
            match expected {
                "{id}" if !part.is_empty() => id = part,
                _ if expected == part => {}
                _ => return None,
            }
        }
        parts.next().is_none().then_some(id)
    }
}

/// The route of a request, and what stands for `{id}` in its path.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Result<(&'static Route, &'a str), ApiError> {
    let mut methods = Vec::new();
    for route in ROUTES {
        let Some(id) = route.fits(path) else { continue };
        if route.method == *method {
            return Ok((route, id));
        }
        methods.push(route.method.as_str());
    }
    let none = ApiError::not_found(format!("there is no {method} {path}"));
    Err(match methods.as_slice() {
        [] => {
            none.hint("`docs/api.md` has every request; is the daemon of an older version than the command?")
        }
        _ => none.hint(format!("this path answers {}", methods.join(" and "))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fit_whole_and_no_two_routes_are_the_same() {
        assert_eq!(find(&Method::GET, "/v1/objects/ab").unwrap().1, "ab");
        for path in ["/v1/objects/", "/v1/objects/a/b", "/v1/id/", "v1/id", "/", ""] {
            assert!(find(&Method::GET, path).is_err(), "{path:?}");
        }
        let error = find(&Method::PUT, "/v1/peers").err().unwrap();
        assert_eq!(error.hint.as_deref(), Some("this path answers GET and POST and DELETE"));
        for (i, route) in ROUTES.iter().enumerate() {
            let same = |other: &Route| other.method == route.method && other.path == route.path;
            assert!(!ROUTES[..i].iter().any(same), "{} {} twice", route.method, route.path);
        }
    }
}
