//! The form of an approval on the consent page.

use accord::{
    clock::UnixMillis,
    text::{id::ScopeName, network::AllowedNetworks},
};
use zeroize::Zeroizing;

use super::{dates, networks, view::ConsentErrors};
use crate::{consent::setup::ConsentChoices, http::form::Form, model::setup::Setup};

/// The fields of an approval.
const CHOICES: [&str; 4] = ["scope", "designated_account_name", "end_date", networks::FIELD];
/// A hidden field that marks a form with choices. Empty fields count as absent, so without the mark a form in which
/// nothing is chosen would seem to hold no choices.
pub(super) const CHOSEN: &str = "chosen";

/// Reads an approval, or returns the errors of the form. Rejects a form without scopes, because [`ConsentChoices`] without
/// scopes grants all of them.
pub(super) fn read(setup: &Setup, form: &Form, now: UnixMillis) -> Result<ConsentChoices, ConsentErrors> {
    let mut errors = ConsentErrors::default();
    let mut scopes = Vec::new();
    for name in form.all("scope") {
        match ScopeName::parse(name) {
            Ok(name) if scopes.contains(&name) => {}
            Ok(name) if setup.scopes.iter().any(|scope| scope.name == name) => scopes.push(name),
            _ => errors.scopes = Some("Choose from the permissions listed.".to_owned()),
        }
    }
    if scopes.is_empty() {
        errors.scopes = Some("Choose at least one permission, or deny the request.".to_owned());
    }
    let account_name = form.text("designated_account_name").trim();
    if account_name.is_empty() {
        errors.account_name = Some("Enter the account name of a user.".to_owned());
    }
    let end_date = form
        .get("end_date")
        .map(|date| dates::end_of_day(date.trim(), now));
    if end_date == Some(None) {
        errors.end_date = Some("Enter a date, such as 2027-01-31.".to_owned());
    }
    let expires_at = end_date.flatten();
    if expires_at.is_some_and(|end| end <= now) {
        errors.end_date = Some("Choose today or a later day.".to_owned());
    }
    let allowed_networks = match networks::read(form) {
        Ok(networks) => networks,
        Err(error) => {
            errors.networks = Some(error);
            AllowedNetworks::default()
        }
    };
    if errors.any() {
        return Err(errors);
    }
    Ok(ConsentChoices {
        setup_id: setup.setup_id.clone(),
        scopes,
        designated_account_name: Zeroizing::new(account_name.to_owned()),
        expires_at,
        allowed_networks,
    })
}

/// Returns whether a form holds the choices of an approval.
pub(super) fn has_choices(form: &Form) -> bool {
    form.get(CHOSEN).is_some() || CHOICES.iter().any(|name| form.get(name).is_some())
}

/// Returns the choices of a form as hidden fields of the sign-in form that interrupts it.
pub(super) fn hidden_fields(form: &Form) -> impl Iterator<Item = (&'static str, String)> {
    let choices = CHOICES
        .iter()
        .flat_map(|name| form.all(name).map(|value| (*name, value.to_owned())));
    choices.chain([(CHOSEN, "1".to_owned())])
}
