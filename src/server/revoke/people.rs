//! Tags that stand for people in tables which must not name them: HMACs under a key derived from the master key.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::server::log::Tag;
use crate::server::master_key::{MasterKey, Purpose, frame, mac};
use crate::token::{Act, ClientId, Issuer, Sub};

/// Makes the tags.
pub struct PeopleTags(hmac::Key);

impl std::fmt::Debug for PeopleTags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeopleTags([redacted])")
    }
}

/// As whom a person is named.
#[derive(Debug, Clone, Copy)]
enum As {
    Actor,
    Subject,
    Person,
}

impl PeopleTags {
    /// Tags under `master`.
    #[must_use]
    pub fn new(master: &MasterKey) -> Self {
        Self(master.mac_key(Purpose::new("person-tag.v1")))
    }

    /// Stands for an actor: whoever names him without `iss`. `within` a client: for that client's grants only.
    #[must_use]
    pub fn actor(&self, sub: &Sub, iss: Option<&Issuer>, within: Option<&ClientId>) -> Tag {
        self.tag(As::Actor, sub, iss, within)
    }

    /// Stands for a target.
    #[must_use]
    pub fn subject(&self, sub: &Sub, within: Option<&ClientId>) -> Tag {
        self.tag(As::Subject, sub, None, within)
    }

    /// Stands for somebody as the directory knows him, in whatever role.
    #[must_use]
    pub fn person(&self, id: &Sub) -> Tag {
        self.tag(As::Person, id, None, None)
    }

    /// What a customer may call somebody who acted for him, whoever that is: the same name each time, and another
    /// one at every other customer.
    ///
    /// # Panics
    /// Never: the name is made of letters and digits.
    #[must_use]
    pub fn pseudonym(&self, customer: &Sub, act: &Act) -> Act {
        let iss = act.iss.as_ref().map_or(&b""[..], |iss| iss.as_str().as_bytes());
        let parts = [&b"pseudonym"[..], customer.as_str().as_bytes(), act.sub.as_str().as_bytes(), iss];
        let tag = mac(&self.0, &frame(&parts));
        let name = tag[..12].iter().fold("staff_".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        Act {
            sub: Sub::try_from(name).expect("letters and digits"),
            iss: None,
            act: act.act.as_ref().map(|earlier| Box::new(self.pseudonym(customer, earlier))),
        }
    }

    /// Every tag under which a hold could meet a grant of `client`, to these people.
    #[must_use]
    pub fn of_grant(&self, client: &ClientId, act: &Act, subject: &Sub) -> Vec<Tag> {
        let mut tags = Vec::with_capacity(6);
        for within in [None, Some(client)] {
            for act in act.chain() {
                tags.push(self.actor(&act.sub, None, within));
                if act.iss.is_some() {
                    tags.push(self.actor(&act.sub, act.iss.as_ref(), within));
                }
            }
            tags.push(self.subject(subject, within));
        }
        tags
    }

    /// The tags of the earlier actors of a chain, for [`crate::server::log::Effect::InsertChain`].
    #[must_use]
    pub fn earlier(&self, act: &Act) -> Vec<Tag> {
        let mut tags: Vec<Tag> = Vec::new();
        for earlier in act.chain().skip(1) {
            tags.push(self.actor(&earlier.sub, None, None));
            if earlier.iss.is_some() {
                tags.push(self.actor(&earlier.sub, earlier.iss.as_ref(), None));
            }
        }
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    fn tag(&self, role: As, sub: &Sub, iss: Option<&Issuer>, within: Option<&ClientId>) -> Tag {
        let role: &[u8] = match role {
            As::Actor => b"actor",
            As::Subject => b"subject",
            As::Person => b"person",
        };
        let iss = iss.map_or(&b""[..], |iss| iss.as_str().as_bytes());
        let within = within.map_or(&b""[..], |client| client.as_str().as_bytes());
        let tag = mac(&self.0, &frame(&[role, sub.as_str().as_bytes(), iss, within]));
        // 160 bits: far from any collision, and shorter in the index
        Tag(URL_SAFE_NO_PAD.encode(&tag[..20]).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_stands_for_one_person_in_one_role_and_place() {
        let tags = PeopleTags::new(&MasterKey::from_bytes([1; 32]));
        let (sub, iss): (Sub, Issuer) = ("admin_7".parse().unwrap(), "https://idp.example".parse().unwrap());
        let client: ClientId = "client_1".parse().unwrap();
        let all = [
            tags.actor(&sub, None, None),
            tags.actor(&sub, Some(&iss), None),
            tags.actor(&sub, None, Some(&client)),
            tags.subject(&sub, None),
            tags.subject(&sub, Some(&client)),
            PeopleTags::new(&MasterKey::from_bytes([2; 32])).actor(&sub, None, None),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(!a.0.contains("admin_7"));
            assert!(all.iter().skip(i + 1).all(|b| a != b));
        }
        let act = Act {
            sub: "agent".parse().unwrap(),
            iss: None,
            act: Some(Box::new(Act { sub, iss: Some(iss), act: None })),
        };
        let of_grant = tags.of_grant(&client, &act, &"user_42".parse().unwrap());
        assert!(all[..3].iter().all(|tag| of_grant.contains(tag)) && !of_grant.contains(&all[3]));
        assert_eq!(tags.earlier(&act).len(), 2);
        assert!(tags.earlier(&act).contains(&all[0]) && tags.earlier(&act).contains(&all[1]));
    }
}
