//! Every objective, one line each.

use super::Entry;

/// Every objective.
pub fn registry() -> &'static [Entry] {
    const REGISTRY: &[Entry] = &[
        super::spo::ENTRY,
        super::dpo::ENTRY,
        super::cdpo::ENTRY,
        super::robust::ENTRY,
        super::ipo::ENTRY,
        super::hinge::ENTRY,
        super::exo::ENTRY,
        super::nca::ENTRY,
        super::bco::ENTRY,
        super::sppo_hard::ENTRY,
        super::aot::PAIRED,
        super::aot::UNPAIRED,
        super::apo::ZERO,
        super::apo::DOWN,
        super::discopop::ENTRY,
        super::sigmoid_norm::ENTRY,
        super::sft::ENTRY,
        super::orpo::ENTRY,
        super::simpo::ENTRY,
        super::cpo::ENTRY,
        super::alpha_po::ENTRY,
        super::chi_po::ENTRY,
        super::r_dpo::ENTRY,
        super::tdpo::FIRST,
        super::tdpo::SECOND,
        super::modpo::ENTRY,
        super::mm_dpo::ENTRY,
        super::mrpo::ENTRY,
        super::selm::ENTRY,
        super::bfpo::ENTRY,
        super::weighted_sum::ENTRY,
        super::kto::ENTRY,
        super::kto::APO_ZERO_UNPAIRED,
        super::opo::ENTRY,
        super::plackett_luce::ENTRY,
    ];
    REGISTRY
}
