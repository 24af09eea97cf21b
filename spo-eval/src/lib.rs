//! Per-dimension tallies, regression of earlier rounds, intervals and reports
