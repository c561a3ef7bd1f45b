//! Operators and workloads: the callers of Accord, each with a bearer token or the name in its client certificate.

use accord::{
    clock::UnixMillis,
    text::{
        caller::{Caller, CertificateName, Role, WorkloadKind},
        opaque::TokenKind,
        person,
    },
};
use strum::{EnumString, IntoStaticStr};

/// The type of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum CallerType {
    /// A person or script that operates Accord.
    Operator,
    /// An internal service.
    Workload,
}

impl CallerType {
    /// Returns the type's name in the database and in errors.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns the kind of the bearer token.
    pub fn token_kind(self) -> TokenKind {
        match self {
            Self::Operator => TokenKind::Operator,
            Self::Workload => TokenKind::Workload,
        }
    }
}

/// What a caller may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// An operator's roles: at least one, all different.
    Roles(Vec<Role>),
    /// A workload's kind.
    Kind(WorkloadKind),
}

impl Authority {
    /// Returns the type of callers that hold such an authority.
    pub fn caller_type(&self) -> CallerType {
        match self {
            Self::Roles(_) => CallerType::Operator,
            Self::Kind(_) => CallerType::Workload,
        }
    }

    /// Returns the authority as the database and the audit record hold it: names, separated by commas.
    pub fn name(&self) -> String {
        match self {
            Self::Roles(roles) => roles.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(","),
            Self::Kind(kind) => kind.as_ref().to_owned(),
        }
    }

    /// Reads what [`Self::name`] wrote.
    pub fn from_name(caller_type: CallerType, name: &str) -> Option<Self> {
        match caller_type {
            CallerType::Operator => {
                let roles: Result<Vec<_>, _> = name.split(',').map(str::parse).collect();
                roles.ok().map(Self::Roles)
            }
            CallerType::Workload => name.parse().ok().map(Self::Kind),
        }
    }
}

/// What an admin gives to add a caller.
#[derive(Clone, Debug)]
pub struct NewCaller {
    /// The name, unique among live callers of the type.
    pub name: String,
    /// What it may do.
    pub authority: Authority,
    /// The name in its client certificate, unique among live callers of both types. A caller without one gets a token.
    pub certificate_name: Option<CertificateName>,
    /// The person behind an operator, which is no id of an operator; `None` if nobody is named, and for a workload.
    pub person: Option<String>,
}

/// An operator or a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerRecord {
    /// The caller's id and authority.
    pub caller: Caller,
    /// The caller's name.
    pub name: String,
    /// The name in its client certificate; `None` for a caller with a token.
    pub certificate_name: Option<String>,
    /// The person behind an operator; the operator's own id if nobody was named. Empty for a workload.
    pub person: String,
    /// The person who added it.
    pub created_by: String,
    /// When it was added.
    pub created_at: UnixMillis,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
}

/// The operator of a call, as the rule of two people sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActingOperator {
    /// The person behind the operator.
    pub person: String,
    /// Whether the operator has the role admin.
    pub is_admin: bool,
    /// The person who added the operator.
    pub created_by: String,
}

impl ActingOperator {
    /// Returns whether the same person did something. Ignores case, so that two spellings of a name are one person.
    pub fn is(&self, person: &str) -> bool {
        person::is_same(&self.person, person)
    }

    /// Returns whether this is known to be another person.
    pub fn is_other_than(&self, person: &str) -> bool {
        person::are_different_persons(&self.person, person)
    }

    /// Returns whether that person has added this operator: who adds operators can act as two of them.
    pub fn was_created_by(&self, person: &str) -> bool {
        person::is_same(&self.created_by, person)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_a_name_are_one_person() {
        let acting = acting("Ada Lovelace");
        assert!(acting.is("ada lovelace") && acting.is("ADA LOVELACE"));
        assert!(!acting.is("Grace Hopper") && !acting.is(""));
        assert!(acting.was_created_by("ROOT") && !acting.was_created_by("Ada Lovelace"));
    }

    #[test]
    fn an_operator_whom_nobody_named_is_no_other_person() {
        let id = "opr_01kdvdna00000000000000000b";
        assert!(acting("Ada").is_other_than("Grace"));
        assert!(!acting("Ada").is_other_than("ADA"));
        assert!(!acting(id).is_other_than("Grace") && !acting("Ada").is_other_than(id));
    }

    fn acting(person: &str) -> ActingOperator {
        ActingOperator {
            person: person.into(),
            is_admin: false,
            created_by: "root".into(),
        }
    }
}
