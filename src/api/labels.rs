//! The projects that alerts, channels and endpoints are labelled with: what a credential that is narrowed to projects reaches.

use super::app::{App, Caller};
use super::problem::Problem;
use crate::domain::id::ProjectId;

/// Reads a label. Who is narrowed to projects labels things with one of these, the only one by default.
///
/// # Errors
/// 422 where there is no such project, or the caller must name one.
pub(super) fn project(app: &App, caller: &Caller, text: Option<String>) -> Result<Option<ProjectId>, Problem> {
    let Some(text) = text else {
        return match caller.principal.projects.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(*only)),
            [_, _, ..] => {
                Err(Problem::invalid("/project_id", "this credential is narrowed to projects; name one of them"))
            }
        };
    };
    let id: ProjectId = text.parse().map_err(|error| Problem::invalid("/project_id", format!("{error}")))?;
    let is_known = app.node.data.control.state().project(caller.principal.tenant, id).is_some();
    if is_known && caller.principal.reaches(Some(id)) {
        Ok(Some(id))
    } else {
        Err(Problem::invalid("/project_id", "there is no such project"))
    }
}

/// Tells whether a caller's list shows what has a label, where these projects are asked for; all where none is.
pub(super) fn is_listed(caller: &Caller, label: Option<ProjectId>, wanted: &[ProjectId]) -> bool {
    let is_wanted = wanted.is_empty() || label.is_some_and(|project| wanted.contains(&project));
    is_wanted && caller.principal.reaches(label)
}
