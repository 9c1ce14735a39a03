//! Colours and fonts, for light and dark.

use crate::evidence::NodeNumber;

/// Fills of nodes by number, on light and on dark ground; red is for losses.
const NODES: [[&str; 2]; 8] = [
    ["#2f74d0", "#5b9cf0"],
    ["#e09a13", "#f0b23c"],
    ["#7d57c8", "#a587ea"],
    ["#17998a", "#36bfae"],
    ["#d4508f", "#ee77b1"],
    ["#6a8f1c", "#9cc040"],
    ["#a36a3c", "#cd9768"],
    ["#68707c", "#98a2b0"],
];

/// Class of shapes that stand for a node.
pub(super) fn node(number: NodeNumber) -> String {
    format!("n{}", (number - 1) % NODES.len())
}

/// The style sheet.
pub(super) fn sheet() -> String {
    let nodes = |ground: usize| -> String {
        NODES
            .iter()
            .enumerate()
            .map(|(index, fills)| format!(".n{index}{{fill:{}}}", fills[ground]))
            .collect()
    };
    format!(
        "
text{{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1f2933;font-size:12.5px}}
.h{{font-size:20px;font-weight:600}} .b{{font-size:14px;font-weight:600}} .s{{fill:#5d6b7a;font-size:12px}}
.w{{fill:#fff;font-weight:600;font-size:12px}} .r{{fill:#c62828;font-weight:600}}
.bg{{fill:#fff}} .card{{fill:#f7f9fb;stroke:#e1e7ed}} .lane{{fill:#e9eef3}} .lost{{fill:#e5383b}} .pin{{fill:#1f2933}}
.out{{fill:none;stroke:#98a4b1;stroke-dasharray:3 3}} .grid{{stroke:#d5dde5}} .mark{{stroke:#1f2933;stroke-width:1.2;stroke-dasharray:2 3}}
.span{{stroke:#1f2933;stroke-width:1.2}} .bad{{stroke:#c62828;stroke-width:1.6}} .ad{{stroke:#fff;stroke-width:1.6}} .ad0{{stroke:#5d6b7a;stroke-width:1.6}}
{}
@media (prefers-color-scheme:dark){{
text{{fill:#e6edf3}} .s{{fill:#9da7b3}} .w{{fill:#0d1117}} .r{{fill:#ff8080}}
.bg{{fill:#0d1117}} .card{{fill:#131920;stroke:#2a323c}} .lane{{fill:#1e2630}} .lost{{fill:#ff5a5f}} .pin{{fill:#e6edf3}}
.out{{stroke:#66717e}} .grid{{stroke:#29323c}} .mark{{stroke:#e6edf3}}
.span{{stroke:#e6edf3}} .bad{{stroke:#ff8080}} .ad{{stroke:#0d1117}} .ad0{{stroke:#9da7b3}}
{}
}}
",
        nodes(0),
        nodes(1)
    )
}
