//! `config.toml`: what can be set, and which mistake is where.

use std::net::SocketAddr;
use std::path::Path;

use madake_store::Limits;
use madake_sync::knock::MAX_CODE;
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::home::HomeError;
use crate::net::{check_address, ticket::MAX_ADDRESSES};

/// What can be set, and how it is written.
const KNOWN: [(&str, &str); 10] = [
    ("nick", "nick = \"kitchen\""),
    ("listen", "listen = \"0.0.0.0:6232\""),
    ("advertise", "advertise = [\"example.org:6232\"]"),
    ("keep", "keep = \"followed\" or keep = \"all\""),
    ("live", "live = true"),
    ("read", "read = \"peers\" or read = \"anyone\""),
    ("homes", "homes = \"invited\" or homes = \"open\" or homes = \"closed\""),
    ("home_token", "home_token = \"several words that are told to members only\""),
    ("quota_entries", "quota_entries = 100000"),
    ("quota_bytes", "quota_bytes = 1073741824"),
];
/// A shorter token could be guessed.
const MIN_TOKEN: usize = 16;
/// Names that differ by more letters are not suggested.
const FAR: usize = 3;

/// `config.toml`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Config {
    /// What the owner calls this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nick: Option<String>,
    /// `host:port` to listen on, [`DEFAULT_LISTEN`](crate::home::DEFAULT_LISTEN) if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// `host:port` under which others reach this node, put into its ticket instead of the bound address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advertise: Vec<String>,
    /// Whose logs are kept.
    pub keep: Keep,
    /// Whether a daemon keeps a session with each peer that has an address; else with those of whom it is
    /// wished (`madake peer add --live`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
    /// Who is given what is kept here.
    pub read: Readers,
    /// Who may have this node as an author's home.
    #[serde(skip_serializing_if = "Door::is_default")]
    pub homes: Door,
    /// Who brings this may, any number of times, unless the door is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_token: Option<String>,
    /// How many entries are kept of each author who has no quota of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_entries: Option<u64>,
    /// How many bytes are kept of each author who has no quota of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
}

/// Whose logs a node keeps.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Its own and those of followed authors.
    #[default]
    Followed,
    /// Everybody's: a relay.
    All,
}

/// Who is given what a node keeps.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readers {
    /// Peers, as far as they are allowed to.
    #[default]
    Peers,
    /// Every node that comes; what strangers bring is not taken.
    Anyone,
}

/// Who may have a node as an author's home.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// Who brings the code of an invite (`madake home invite`), or the token.
    #[default]
    Invited,
    /// Everybody.
    Open,
    /// Nobody.
    Closed,
}

impl Door {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is wrong, where in the text, and what would be right.
struct Mistake {
    at: usize,
    message: String,
    hint: String,
}

impl Config {
    /// Reads the text of a configuration; `path` is named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, HomeError> {
        read(text).map_err(|Mistake { at, message, hint }| {
            let line = 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count();
            HomeError::Config { path: path.into(), message: format!("line {line}: {message}"), hint }
        })
    }

    /// How much is kept of authors who have no quota of their own.
    pub fn quota(&self) -> Limits {
        Limits { entries: self.quota_entries, bytes: self.quota_bytes }
    }

    /// The text of a configuration.
    pub(crate) fn to_text(&self, path: &Path) -> Result<String, HomeError> {
        toml::to_string(self).map_err(|error| HomeError::Config {
            path: path.into(),
            message: error.to_string(),
            hint: known(),
        })
    }
}

fn read(text: &str) -> Result<Config, Mistake> {
    let table = DeTable::parse(text).map_err(|error| Mistake {
        at: error.span().map_or(0, |span| span.start),
        message: error.message().to_owned(),
        hint: known(),
    })?;
    let mut config = Config::default();
    for (key, value) in table.get_ref() {
        let name: &str = key.get_ref();
        match name {
            "nick" => config.nick = Some(text_of(name, value)?),
            "listen" => {
                let address = text_of(name, value)?;
                if !can_be_listened_on(&address) {
                    return Err(wrong(name, value, &format!("`{address}` is no HOST:PORT")));
                }
                config.listen = Some(address);
            }
            "advertise" => {
                let DeValue::Array(addresses) = value.get_ref() else {
                    return Err(wrong(name, value, "a list of addresses belongs there"));
                };
                if addresses.len() > MAX_ADDRESSES {
                    let many = addresses.len();
                    let why = format!("{many} addresses are more than a ticket holds, {MAX_ADDRESSES}");
                    return Err(wrong(name, value, &why));
                }
                for address in addresses.iter() {
                    let text = text_of(name, address)?;
                    check_address(&text).map_err(|error| wrong(name, address, &error.to_string()))?;
                    config.advertise.push(text);
                }
            }
            "keep" => {
                config.keep = match text_of(name, value)?.as_str() {
                    "followed" => Keep::Followed,
                    "all" => Keep::All,
                    other => {
                        return Err(wrong(name, value, &format!("`{other}` is none of followed and all")));
                    }
                }
            }
            "live" => match value.get_ref() {
                DeValue::Boolean(live) => config.live = *live,
                _ => return Err(wrong(name, value, "true or false belongs there")),
            },
            "read" => {
                config.read = match text_of(name, value)?.as_str() {
                    "peers" => Readers::Peers,
                    "anyone" => Readers::Anyone,
                    other => {
                        return Err(wrong(name, value, &format!("`{other}` is none of peers and anyone")));
                    }
                }
            }
            "homes" => {
                config.homes = match text_of(name, value)?.as_str() {
                    "invited" => Door::Invited,
                    "open" => Door::Open,
                    "closed" => Door::Closed,
                    other => {
                        let why = format!("`{other}` is none of invited, open and closed");
                        return Err(wrong(name, value, &why));
                    }
                }
            }
            "home_token" => {
                let token = text_of(name, value)?;
                if !(MIN_TOKEN..=MAX_CODE).contains(&token.len()) {
                    let why = format!("a token has {MIN_TOKEN} to {MAX_CODE} bytes");
                    return Err(wrong(name, value, &why));
                }
                config.home_token = Some(token);
            }
            "quota_entries" => config.quota_entries = Some(number_of(name, value)?),
            "quota_bytes" => config.quota_bytes = Some(number_of(name, value)?),
            unknown => {
                return Err(Mistake {
                    at: key.span().start,
                    message: format!("there is no setting `{unknown}`"),
                    hint: nearest(unknown).map_or_else(known, |known| format!("is `{known}` meant?")),
                });
            }
        }
    }
    Ok(config)
}

fn text_of(name: &str, value: &Spanned<DeValue<'_>>) -> Result<String, Mistake> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(wrong(name, value, &format!("text belongs there, and not {}", kind(other)))),
    }
}

fn number_of(name: &str, value: &Spanned<DeValue<'_>>) -> Result<u64, Mistake> {
    let DeValue::Integer(number) = value.get_ref() else {
        return Err(wrong(
            name,
            value,
            &format!("a number belongs there, and not {}", kind(value.get_ref())),
        ));
    };
    // A digit may have underscores beside it, which TOML has taken out.
    u64::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|number| i64::try_from(*number).is_ok())
        .ok_or_else(|| wrong(name, value, "it is negative, or too large"))
}

fn wrong(name: &str, value: &Spanned<DeValue<'_>>, why: &str) -> Mistake {
    let example = KNOWN.iter().find(|(known, _)| *known == name).map_or("", |(_, example)| example);
    Mistake {
        at: value.span().start,
        message: format!("`{name}`: {why}"),
        hint: format!("such as {example}"),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn known() -> String {
    format!("known settings: {}", KNOWN.map(|(name, _)| name).join(", "))
}

/// The setting that was meant, most likely.
fn nearest(name: &str) -> Option<&'static str> {
    let distance = |known: &str| strsim::damerau_levenshtein(&name.to_lowercase(), known);
    let near = KNOWN.iter().map(|(known, _)| (distance(known), *known)).min()?;
    (near.0 <= FAR.min(name.len() / 2)).then_some(near.1)
}

/// Whether this is `host:port`; whether there is such a host is seen when it is listened on.
fn can_be_listened_on(address: &str) -> bool {
    let host_and_port = |(host, port): (&str, &str)| {
        !host.is_empty() && !host.contains([':', '/']) && port.parse::<u16>().is_ok()
    };
    address.parse::<SocketAddr>().is_ok() || address.rsplit_once(':').is_some_and(host_and_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> (String, String) {
        let error = Config::parse(text, Path::new("config.toml")).unwrap_err();
        (error.to_string(), error.hint().unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        let config = Config {
            nick: Some("bo".into()),
            listen: Some("[::1]:0".into()),
            advertise: vec!["example.org:77".into()],
            keep: Keep::All,
            live: true,
            read: Readers::Anyone,
            homes: Door::Open,
            home_token: Some("a token of some words".into()),
            quota_entries: Some(5),
            quota_bytes: Some(1 << 30),
        };
        let text = config.to_text(Path::new("x")).unwrap();
        assert_eq!(Config::parse(&text, Path::new("x")).unwrap(), config);
        assert_eq!(Config::parse("", Path::new("x")).unwrap(), Config::default());
        assert!(Config::parse("listen = 'localhost:1'", Path::new("x")).is_ok());
    }

    #[test]
    fn mistakes_are_named_with_their_line_and_what_was_meant() {
        let cases = [
            ("nick = 'a'\nlissten = 'x'", "line 2: there is no setting `lissten`", "is `listen` meant?"),
            ("\n\nKeep = 'all'", "line 3: there is no setting `Keep`", "is `keep` meant?"),
            ("colour = 'x'", "line 1: there is no setting `colour`", "known settings: nick, listen"),
            ("[listen]\nport = 5", "`listen`: text belongs there, and not a table", "listen = \"0.0.0.0:"),
            (
                "nick = 'a'\nlisten = 6232",
                "line 2: `listen`: text belongs there, and not a number",
                "such as",
            ),
            ("listen = 'localhost'", "line 1: `listen`: `localhost` is no HOST:PORT", "0.0.0.0:6232"),
            ("listen = 'a:70000'", "`a:70000` is no HOST:PORT", "such as"),
            ("advertise = 'a:1'", "`advertise`: a list of addresses belongs there", "example.org"),
            ("advertise = [\n'a:1',\n'b']", "line 3: `advertise`: ", "example.org"),
            (
                &format!("nick = 'a'\nadvertise = [{}]", "'a:1', ".repeat(17)),
                "line 2: `advertise`: 17 addresses are more than a ticket holds, 16",
                "example.org",
            ),
            ("advertise = [7]", "line 1: `advertise`: text belongs there", "example.org"),
            ("live = 'yes'", "line 1: `live`: true or false belongs there", "live = true"),
            ("keep = 'some'", "line 1: `keep`: `some` is none of followed and all", "keep = \"all\""),
            ("read = 'all'", "`read`: `all` is none of peers and anyone", "read = \"anyone\""),
            ("homes = 'ajar'", "`homes`: `ajar` is none of invited", "homes = \"open\""),
            ("home_token = 'short'", "`home_token`: a token has 16 to 64 bytes", "several words"),
            ("quota_bytes = '1G'", "`quota_bytes`: a number belongs there, and not text", "1073741824"),
            ("quota_entries = -5", "`quota_entries`: it is negative, or too large", "100000"),
            ("nick = 'a'\nnick = 'b'", "line 2: ", "known settings"),
            ("nick = ", "line 1: ", "known settings"),
            ("nick = 'a\n", "line 1: ", "known settings"),
        ];
        for (text, message, hint) in cases {
            let found = mistake(text);
            assert!(found.0.contains(message) && found.0.contains("config.toml"), "{text:?}: {found:?}");
            assert!(found.1.contains(hint), "{text:?}: {found:?}");
        }
    }
}
