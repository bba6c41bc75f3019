//! Whose a name is.

use madake_object::FileName;

/// What a name begins with that is always one author's.
const OWN: char = '~';

/// Who says what the head of a name is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Whose {
    /// The cluster: it has a register.
    Cluster,
    /// Its author alone: the newest version is the head.
    Author,
}

/// Whether a cluster may have a register for this name: any but those of the form `~AUTHOR/NAME`.
pub fn is_shared(name: &FileName) -> bool {
    !name.as_str().starts_with(OWN)
}

/// A name is the cluster's if this node is a member and the name has a register; else one's own. So a name that was
/// used before its node joined stays what it was, until somebody publishes it: which is to begin a register for
/// it ([`super::Wish::Advance`], P5 (iv)).
pub fn whose(name: &FileName, is_member: bool, has_register: bool) -> Whose {
    if is_member && has_register && is_shared(name) { Whose::Cluster } else { Whose::Author }
}

/// Whether a name is `prefix`, or lies under it as under a folder; an empty prefix has all.
pub fn is_under(name: &FileName, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    name.as_str()
        .strip_prefix(prefix)
        .is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> FileName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_the_clusters_if_it_has_a_register_there() {
        assert_eq!(whose(&name("a/b"), true, true), Whose::Cluster);
        assert_eq!(whose(&name("a/b"), true, false), Whose::Author, "not published");
        assert_eq!(whose(&name("a/b"), false, true), Whose::Author, "no member any more");
        assert_eq!(whose(&name("~7f3a/b"), true, true), Whose::Author);
        assert!(is_shared(&name("a/~b")) && !is_shared(&name("~b/a")));
    }

    #[test]
    fn a_prefix_is_a_folder_or_the_name_itself() {
        let under = |prefix| is_under(&name("docs/plan.md"), prefix);
        assert!(under("") && under("docs") && under("docs/") && under("docs/plan.md"));
        assert!(!under("doc") && !under("docs/plan") && !under("docs/plan.md/x") && !under("x"));
    }
}
