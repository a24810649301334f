//! Why an orchestrator refuses every ticket of a sender: its share of the reserve, or its own cap.

use num_bigint::BigInt;

use super::amount::shown;
use super::rules;
use super::terms::Terms;

/// The orchestrator responds with "insufficient sender reserve" in both cases.
pub(super) fn refusal(terms: &Terms) -> String {
    let least = shown(&rules::least_face_value(terms));
    let capped = terms.max_face_value > BigInt::ZERO && terms.max_face_value < rules::least_face_value(terms);
    let cause = if capped {
        format!("its own -maxFaceValue of {} is below {least}, so no reserve is enough", shown(&terms.max_face_value))
    } else {
        let (share, reserve) = (shown(&terms.reserve_share()), shown(&terms.reserve));
        format!("its share of the reserve is {share} ({reserve} / {}), {least} is required", terms.pool_size)
    };
    format!("the orchestrator refuses (\"insufficient sender reserve\"): {cause}")
}
