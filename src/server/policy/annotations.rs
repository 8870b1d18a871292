//! What the annotations on a rule mean; one that is unknown or nonsense is an error when the policy is loaded.

use cedar_policy::Effect;
use regex::Regex;

use super::{FULL_ACCESS_SCOPE, LIFETIME_CAP_SECONDS};
use crate::token::{Audience, Scope};

/// The longest text an annotation may carry, bytes.
const MAX_TEXT_BYTES: usize = 1000;
/// The most audiences one request names (contract.md §3).
const MAX_AUDIENCES: u32 = 8;

/// Which scopes a permit grants at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scopes {
    /// Whatever is asked for.
    Any,
    /// No more than these.
    Only(Scope),
}

/// What `@require_consent` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consent {
    /// A consent whose end lies ahead.
    Given,
    /// Merely that the person did not opt out.
    NotRefused,
}

/// The annotations of one rule, understood.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one annotation that is there or not")]
pub(super) struct Annotations {
    pub(super) id: String,
    pub(super) message: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) clients: Vec<String>,
    pub(super) asserted: bool,
    pub(super) unknown_actor: bool,
    pub(super) unknown_target: bool,
    pub(super) max_lifetime: Option<u32>,
    pub(super) scope: Option<Scopes>,
    pub(super) audience: Option<Vec<Audience>>,
    pub(super) max_audiences: Option<u32>,
    pub(super) require_approval: bool,
    pub(super) break_glass: bool,
    pub(super) require_consent: Option<Consent>,
    pub(super) max_targets_per_hour: Option<u32>,
    pub(super) ticket_pattern: Option<Regex>,
    pub(super) ticket_lookup: bool,
    pub(super) step_up_acr: Vec<String>,
    pub(super) step_up_amr: Vec<String>,
    pub(super) max_login_age: Option<u32>,
    pub(super) default_reason: Option<String>,
}

/// What is wrong with an annotation, and which one it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadAnnotation {
    /// Its name, so that it can be found in the text; `None` when one is missing.
    pub(super) name: Option<String>,
    /// One sentence.
    pub(super) message: String,
}

/// The annotations either kind of rule may carry.
const COMMON: [&str; 2] = ["id", "note"];
/// The annotations of a permit.
const PERMIT: [&str; 18] = [
    "asserted",
    "audience",
    "break_glass",
    "client",
    "default_reason",
    "hint",
    "max_audiences",
    "max_lifetime",
    "max_login_age",
    "max_targets_per_hour",
    "require_approval",
    "require_consent",
    "scope",
    "step_up_acr",
    "step_up_amr",
    "ticket_lookup",
    "ticket_pattern",
    "unknown",
];

impl Annotations {
    /// Reads the annotations of one rule, collecting every fault rather than the first.
    pub(super) fn read<'a>(
        effect: Effect,
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Vec<BadAnnotation>> {
        let mut out = Self::default();
        let mut faults = Vec::new();
        // Cedar keeps annotations sorted by name; the order of faults follows, so messages are stable.
        for (name, value) in pairs {
            if let Err(message) = out.set(effect, name, value) {
                faults.push(BadAnnotation { name: Some(name.to_owned()), message });
            }
        }
        if out.id.is_empty() && !faults.iter().any(|f| f.name.as_deref() == Some("id")) {
            faults.push(BadAnnotation {
                name: None,
                message: "a rule needs a name: put @id(\"…\") before it".to_owned(),
            });
        }
        out.check_together(&mut faults);
        if faults.is_empty() { Ok(out) } else { Err(faults) }
    }

    fn set(&mut self, effect: Effect, name: &str, value: &str) -> Result<(), String> {
        let belongs = COMMON.contains(&name)
            || match effect {
                Effect::Permit => PERMIT.contains(&name),
                Effect::Forbid => name == "message",
            };
        if !belongs {
            return Err(not_known(effect, name));
        }
        match name {
            "id" => self.id = rule_id(value)?,
            "note" => drop(text(value)?),
            "message" => self.message = Some(text(value)?),
            "hint" => self.hint = Some(text(value)?),
            "client" => self.clients = words(value)?,
            "asserted" => {
                if value != "allow" {
                    return Err("must be @asserted(\"allow\")".to_owned());
                }
                self.asserted = true;
            }
            "unknown" => self.set_unknown(value)?,
            "max_lifetime" => self.max_lifetime = Some(number(value, 1, LIFETIME_CAP_SECONDS)?),
            "scope" => self.scope = Some(scopes(value)?),
            "audience" => self.audience = Some(audiences(value)?),
            "max_audiences" => self.max_audiences = Some(number(value, 1, MAX_AUDIENCES)?),
            "require_approval" => self.require_approval = flag(value)?,
            "break_glass" => self.break_glass = flag(value)?,
            "require_consent" => self.require_consent = Some(consent(value)?),
            "max_targets_per_hour" => self.max_targets_per_hour = Some(number(value, 1, 100_000)?),
            "ticket_pattern" => self.ticket_pattern = Some(pattern(value)?),
            "ticket_lookup" => self.ticket_lookup = flag(value)?,
            "step_up_acr" => self.step_up_acr = words(value)?,
            "step_up_amr" => self.step_up_amr = words(value)?,
            "max_login_age" => self.max_login_age = Some(number(value, 1, 30 * 86_400)?),
            "default_reason" => self.default_reason = Some(text(value)?),
            other => return Err(not_known(effect, other)),
        }
        Ok(())
    }

    fn set_unknown(&mut self, value: &str) -> Result<(), String> {
        for word in words(value)? {
            match word.as_str() {
                "actor" => self.unknown_actor = true,
                "target" => self.unknown_target = true,
                other => return Err(format!("`{other}` is neither `actor` nor `target`")),
            }
        }
        Ok(())
    }

    /// What only makes sense in company.
    fn check_together(&self, faults: &mut Vec<BadAnnotation>) {
        let mut fault = |name: &str, message: &str| {
            faults.push(BadAnnotation { name: Some(name.to_owned()), message: message.to_owned() });
        };
        if self.clients.is_empty() {
            let needs = "only a permit that names its clients may carry this: add @client(\"…\")";
            if self.asserted {
                fault("asserted", needs);
            }
            if self.unknown_actor || self.unknown_target {
                fault("unknown", needs);
            }
            if self.default_reason.is_some() {
                fault("default_reason", needs);
            }
        }
        if self.break_glass && self.require_approval {
            fault("break_glass", "means without approval: take away this or @require_approval");
        }
    }

    /// Whether the permit is open to this client: it names none, or this one by id or by name.
    pub(super) fn admits_client(&self, id: &str, name: &str) -> bool {
        // A word that looks like an id is one: nobody gains a permit by calling his client `client_…`.
        self.clients.is_empty()
            || self.clients.iter().any(|c| if c.starts_with("client_") { c == id } else { c == name })
    }
}

fn not_known(effect: Effect, name: &str) -> String {
    let (kind, known): (&str, Vec<&str>) = match effect {
        Effect::Permit => ("permit", COMMON.iter().chain(&PERMIT).copied().collect()),
        Effect::Forbid => ("forbid", COMMON.iter().copied().chain(["message"]).collect()),
    };
    let nearest = known.iter().min_by_key(|k| distance(k, name)).filter(|k| distance(k, name) <= 2);
    match nearest {
        Some(near) => format!("a {kind} has no annotation @{name}; did you mean @{near}?"),
        None => format!("a {kind} has no annotation @{name}"),
    }
}

/// Levenshtein distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn rule_id(value: &str) -> Result<String, String> {
    let ok = (1..=100).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'));
    if ok { Ok(value.to_owned()) } else { Err("must be 1 to 100 of A-Z a-z 0-9 _ - . :".to_owned()) }
}

fn text(value: &str) -> Result<String, String> {
    if value.trim().is_empty() || value.len() > MAX_TEXT_BYTES || value.chars().any(char::is_control) {
        return Err(format!("must be a text of 1 to {MAX_TEXT_BYTES} bytes without control characters"));
    }
    Ok(value.to_owned())
}

fn words(value: &str) -> Result<Vec<String>, String> {
    let value = text(value)?;
    Ok(value.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect())
}

fn number(value: &str, least: u32, most: u32) -> Result<u32, String> {
    // `parse` would take `+5` as well: one way to write a number is enough.
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|n| plain && (least..=most).contains(n))
        .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

fn flag(value: &str) -> Result<bool, String> {
    match value {
        "" | "true" => Ok(true),
        _ => Err("takes no value, or \"true\"; leave it out for the contrary".to_owned()),
    }
}

fn scopes(value: &str) -> Result<Scopes, String> {
    if value == FULL_ACCESS_SCOPE {
        return Ok(Scopes::Any);
    }
    let scope = Scope::parse(value).map_err(|e| e.to_string())?;
    if scope.is_empty() || scope.contains(FULL_ACCESS_SCOPE) {
        return Err("must be scopes with a space between them, or \"*\" alone".to_owned());
    }
    Ok(Scopes::Only(scope))
}

fn audiences(value: &str) -> Result<Vec<Audience>, String> {
    words(value)?.iter().map(|w| Audience::try_from(w.as_str()).map_err(|e| e.to_string())).collect()
}

fn consent(value: &str) -> Result<Consent, String> {
    match value {
        "given" => Ok(Consent::Given),
        "not_refused" => Ok(Consent::NotRefused),
        _ => Err("must be \"given\" or \"not_refused\"".to_owned()),
    }
}

/// The pattern has to match the whole ticket: one that is only found inside would let anything through.
fn pattern(value: &str) -> Result<Regex, String> {
    let value = text(value)?;
    regex::RegexBuilder::new(&format!(r"\A(?:{value})\z"))
        .size_limit(1 << 20)
        .build()
        .map_err(|_| format!("`{value}` is not a regular expression"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(pairs: &[(&'static str, &'static str)]) -> Result<Annotations, Vec<BadAnnotation>> {
        Annotations::read(Effect::Permit, [("id", "r")].into_iter().chain(pairs.iter().copied()))
    }

    fn complaint(pairs: &[(&'static str, &'static str)]) -> String {
        permit(pairs).unwrap_err().remove(0).message
    }

    #[test]
    fn every_permit_annotation_takes_a_good_value() {
        let good = permit(&[
            ("asserted", "allow"),
            ("audience", "https://a https://b"),
            ("client", "client_1 console"),
            ("default_reason", "unstated (clerk)"),
            ("hint", "Support only."),
            ("max_audiences", "2"),
            ("max_lifetime", "3600"),
            ("max_login_age", "300"),
            ("max_targets_per_hour", "20"),
            ("note", "anything"),
            ("require_approval", ""),
            ("require_consent", "given"),
            ("scope", "read billing:read"),
            ("step_up_acr", "gold"),
            ("step_up_amr", "hwk mfa"),
            ("ticket_lookup", "true"),
            ("ticket_pattern", "INC-[0-9]+"),
            ("unknown", "actor target"),
        ])
        .unwrap();
        assert!(good.unknown_actor && good.unknown_target && good.require_approval && good.ticket_lookup);
        assert_eq!(good.max_lifetime, Some(3600));
        assert_eq!(good.step_up_amr, ["hwk", "mfa"]);
        assert!(permit(&[("break_glass", "")]).unwrap().break_glass);
        assert_eq!(permit(&[("scope", "*")]).unwrap().scope, Some(Scopes::Any));
        assert_eq!(
            permit(&[("require_consent", "not_refused")]).unwrap().require_consent,
            Some(Consent::NotRefused)
        );
    }

    #[test]
    fn a_bad_value_is_a_fault_with_a_sentence() {
        for (name, value) in [
            ("max_lifetime", "3601"),
            ("max_lifetime", "0"),
            ("max_lifetime", "-1"),
            ("max_lifetime", "+900"),
            ("max_lifetime", "15m"),
            ("max_lifetime", "99999999999999999999"),
            ("max_audiences", "9"),
            ("max_targets_per_hour", "0"),
            ("scope", ""),
            ("scope", "read *"),
            ("scope", "bad\"scope"),
            ("audience", ""),
            ("asserted", "yes"),
            ("require_approval", "false"),
            ("require_consent", "maybe"),
            ("ticket_pattern", "("),
            ("unknown", "everyone"),
            ("hint", " "),
            ("note", "bell\u{7}"),
        ] {
            assert!(!complaint(&[("client", "c"), (name, value)]).is_empty(), "@{name}({value:?})");
        }
    }

    #[test]
    fn an_unknown_annotation_is_a_fault_and_names_the_nearest() {
        assert_eq!(
            complaint(&[("max_lifetme", "900")]),
            "a permit has no annotation @max_lifetme; did you mean @max_lifetime?"
        );
        assert_eq!(complaint(&[("colour", "red")]), "a permit has no annotation @colour");
        let forbid = Annotations::read(Effect::Forbid, [("id", "f"), ("scope", "read")].into_iter());
        assert_eq!(forbid.unwrap_err()[0].message, "a forbid has no annotation @scope");
        assert!(permit(&[("message", "no")]).is_err());
    }

    #[test]
    fn what_loosens_must_name_its_client() {
        for (name, value) in [("asserted", "allow"), ("unknown", "target"), ("default_reason", "none")] {
            assert!(complaint(&[(name, value)]).contains("@client"), "{name}");
            assert!(permit(&[("client", "dev"), (name, value)]).is_ok(), "{name}");
        }
        assert!(complaint(&[("break_glass", ""), ("require_approval", "")]).contains("without approval"));
    }

    #[test]
    fn a_rule_has_a_name_and_no_rule_can_pass_for_a_built_in_one() {
        let nameless = Annotations::read(Effect::Permit, std::iter::empty()).unwrap_err();
        assert_eq!((nameless.len(), nameless[0].name.is_none()), (1, true));
        for id in ["", "stagedoor/no_permit", "two words", "ü"] {
            assert!(Annotations::read(Effect::Permit, [("id", id)].into_iter()).is_err(), "{id}");
        }
    }

    #[test]
    fn a_client_is_named_by_id_or_by_name_and_a_name_cannot_pass_for_an_id() {
        let open = permit(&[]).unwrap();
        assert!(open.admits_client("client_1", "anything"));
        let named = permit(&[("client", "client_1 dev")]).unwrap();
        assert!(named.admits_client("client_1", "x") && named.admits_client("client_9", "dev"));
        assert!(!named.admits_client("client_2", "client_1"));
        assert!(!named.admits_client("client_2", "Dev"));
    }

    #[test]
    fn a_ticket_pattern_has_to_match_the_whole_ticket() {
        let rule = permit(&[("ticket_pattern", "INC-[0-9]+|CHG")]).unwrap();
        let matches = |t| rule.ticket_pattern.as_ref().unwrap().is_match(t);
        assert!(matches("INC-1") && matches("CHG"));
        assert!(!matches("XINC-1") && !matches("INC-1x") && !matches("CHG\n") && !matches("xCHG"));
    }
}
