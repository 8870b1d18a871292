//! SCIM's JSON.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::super::{DirectoryError, check_person};
use super::IdAttribute;
use crate::server::policy::Person;
use crate::token::Sub;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
const SEARCH: &str = "urn:ietf:params:scim:api:messages:2.0:SearchRequest";

/// A user resource (RFC 7643 §4.1): what is used of it. Repeated members are refused by serde.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct User {
    schemas: Vec<String>,
    id: Option<String>,
    external_id: Option<String>,
    #[serde(rename = "userName")]
    login: Option<String>,
    display_name: Option<String>,
    active: Option<bool>,
    roles: Option<Vec<Membership>>,
    groups: Option<Vec<Membership>>,
    #[serde(rename = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User")]
    enterprise: Option<Enterprise>,
    #[serde(rename = "urn:ietf:params:scim:schemas:extension:stagedoor:2.0:User")]
    impersonation: Option<Impersonation>,
}

/// One value of a multi-valued attribute: `{"value": …}`, or bare where a server is plain.
#[derive(Deserialize)]
#[serde(untagged)]
enum Membership {
    Bare(String),
    Complex { value: Option<String>, display: Option<String> },
}

#[derive(Deserialize)]
struct Enterprise {
    organization: Option<String>,
}

/// Our own extension: what a person has said about being impersonated.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonation {
    consent_until: Option<DateTime<Utc>>,
    opted_out: Option<bool>,
}

impl User {
    /// The person, with the id that `attribute` names.
    pub(super) fn into_person(self, attribute: IdAttribute) -> Result<(Sub, Person), DirectoryError> {
        let given = match attribute {
            IdAttribute::Id => self.id,
            IdAttribute::UserName => self.login,
            IdAttribute::ExternalId => self.external_id,
        };
        let given = given.ok_or(DirectoryError::Malformed("the person has no id"))?;
        let id = Sub::try_from(given).map_err(|_| DirectoryError::Malformed("the person's id is none"))?;
        let impersonation = self.impersonation.as_ref();
        let person = Person {
            id: Some(id.clone()),
            display_name: self.display_name,
            // Absent is not "yes": a server that does not say so has nobody active.
            active: self.active.unwrap_or(false),
            roles: values(self.roles, false),
            groups: values(self.groups, true),
            org: self.enterprise.and_then(|e| e.organization).filter(|org| !org.is_empty()),
            consent_until: impersonation.and_then(|i| i.consent_until),
            opted_out: impersonation.and_then(|i| i.opted_out).unwrap_or(false),
        };
        check_person(&person).map_err(DirectoryError::Malformed)?;
        Ok((id, person))
    }
}

/// The values; of groups the shown names too, since rules are written with either. A role's shown name is
/// decoration and grants nothing.
fn values(memberships: Option<Vec<Membership>>, with_names: bool) -> Vec<String> {
    // by a hash: an answer may hold a hundred thousand of them, before somebody counts
    let mut seen = HashSet::new();
    let mut out: Vec<String> = Vec::new();
    for membership in memberships.unwrap_or_default() {
        let (value, display) = match membership {
            Membership::Bare(value) => (Some(value), None),
            Membership::Complex { value, display } => (value, display.filter(|_| with_names)),
        };
        for text in [value, display].into_iter().flatten() {
            if !text.is_empty() && seen.insert(text.clone()) {
                out.push(text);
            }
        }
    }
    out
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    schemas: Vec<String>,
    total_results: u64,
    #[serde(rename = "Resources", default)]
    resources: Vec<User>,
}

pub(super) fn read_user(body: &[u8]) -> Result<User, DirectoryError> {
    let user =
        serde_json::from_slice(body).map_err(|_| DirectoryError::Malformed("it is not a user resource"))?;
    checked(user)
}

fn checked(user: User) -> Result<User, DirectoryError> {
    if user.schemas.iter().any(|schema| schema == USER) {
        Ok(user)
    } else {
        Err(DirectoryError::Malformed("it is not a user resource"))
    }
}

pub(super) fn read_list(body: &[u8]) -> Result<Vec<User>, DirectoryError> {
    let list: List =
        serde_json::from_slice(body).map_err(|_| DirectoryError::Malformed("it is not a list response"))?;
    if !list.schemas.iter().any(|schema| schema == LIST) {
        return Err(DirectoryError::Malformed("it is not a list response"));
    }
    if list.resources.is_empty() && list.total_results > 0 {
        return Err(DirectoryError::Malformed("people are counted but not listed"));
    }
    list.resources.into_iter().map(checked).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SearchRequest<'a> {
    schemas: [&'a str; 1],
    filter: &'a str,
    start_index: usize,
    count: usize,
}

pub(super) fn search_request(filter: &str, count: usize) -> Vec<u8> {
    let request = SearchRequest { schemas: [SEARCH], filter, start_index: 1, count };
    serde_json::to_vec(&request).expect("text and numbers are always JSON")
}

/// A text as a filter's string (RFC 7644 §3.4.2.2: JSON's rules), so that nothing in it ends the string.
pub(super) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
