"""`eval`: measure what a model remembers of long documents, by filter, as the papers do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longmamba_mlx.cli import options as o
from longmamba_mlx.filtering import registry

evaluation = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Measure what a model remembers of long documents."
)

Lengths = Annotated[
    str,
    typer.Option(
        "--lengths", help="Lengths in tokens, e.g. 512,2048,8192; 16x means 16 training lengths.", metavar="LENGTHS"
    ),
]
Filters = Annotated[
    str,
    typer.Option(
        "--filter",
        help="Filters to compare, separated by commas; `last` reads only the last window, `surest` asks every part.",
        autocompletion=registry.completions,
        metavar="FILTER",
    ),
]
Samples = Annotated[
    int, typer.Option("--samples", min=1, help="Questions (ppl: windows) per length and filter.", metavar="N")
]
Depths = Annotated[
    str,
    typer.Option(
        "--depths",
        help="Depths of the fact, as shares of the document: 0,0.5,1, or 11 for eleven steps.",
        metavar="DEPTHS",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed of the documents.", metavar="N")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.", metavar="FILE")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Draw the rows into this PNG.", metavar="FILE")]
Log = Annotated[
    Path | None,
    typer.Option(
        "--log",
        help="Write every measured question to this JSONL file, from which the same command resumes.",
        metavar="FILE",
    ),
]
Filler = Annotated[
    list[Path] | None,
    typer.Option("--filler", help="Texts to build documents from; the sample document by default.", metavar="FILE"),
]
Data = Annotated[Path | None, typer.Option("--data", help="Folder with the published files.", metavar="FOLDER")]
Tasks = Annotated[
    str,
    typer.Option("--tasks", help="Tasks, separated by commas. Default: all whose files are present.", metavar="TASKS"),
]


@evaluation.command()
def niah(
    model: o.Model = "demo",
    lengths: Lengths = "1x,4x,16x",
    filter: Filters = "off,longmamba",
    samples: Samples = 40,
    depths: Depths = "",
    facts: Annotated[
        int, typer.Option("--facts", min=0, help="Facts per document; 0: 4, or 1 with --depths.", metavar="N")
    ] = 0,
    split: Annotated[
        str, typer.Option("--split", help="Split of the names: test, or dev for development.", metavar="SPLIT")
    ] = "test",
    filler: Filler = None,
    encoding: o.Encoding = "",
    absent: Annotated[
        bool, typer.Option("--absent", help="Ask about names that do not occur; the right answer is a refusal.")
    ] = False,
    attributes: Annotated[
        str,
        typer.Option(
            "--attributes",
            help="Hide dates, people, places, amounts and phone numbers too: trained, or unseen for kinds of fact "
            "that no built-in model was trained on.",
            metavar="CHOICE",
        ),
    ] = "",
    seed: Seed = 0,
    json: JsonFile = None,
    plot: PlotFile = None,
    log: Log = None,
) -> None:
    """Needles in a haystack: facts hidden in a long text. They are asked for one by one."""
    from longmamba_mlx.cli.eval_runs import Measurement, Texts, measure_attributes, measure_niah

    run, texts = Measurement(model, filter, lengths, samples, seed, json, plot, log), Texts(filler or [], encoding)
    if attributes:
        measure_attributes(run, attributes, depths=depths, facts=facts, split=split, filler=texts, absent=absent)
    else:
        measure_niah(run, depths=depths, facts=facts, split=split, filler=texts, absent=absent)


@evaluation.command()
def passkey(
    model: o.Model = "demo",
    lengths: Lengths = "1x,4x,16x",
    filter: Filters = "off,longmamba",
    samples: Samples = 20,
    depths: Depths = "",
    seed: Seed = 0,
    json: JsonFile = None,
    plot: PlotFile = None,
    log: Log = None,
) -> None:
    """Pass key: a number hidden in repeated sentences. The wording is the published one."""
    from longmamba_mlx.cli.eval_runs import Measurement, measure_passkey

    measure_passkey(Measurement(model, filter, lengths, samples, seed, json, plot, log), depths=depths)


@evaluation.command()
def ppl(
    text: Annotated[
        list[Path],
        typer.Option(
            "--text", help="Text or folder of texts, such as PG-19's test books. May be repeated.", metavar="FILE"
        ),
    ],
    encoding: o.Encoding = "",
    model: o.Model = "demo",
    lengths: Lengths = "1x,4x,16x",
    filter: Filters = "off,longmamba",
    samples: Samples = 40,
    json: JsonFile = None,
    plot: PlotFile = None,
    log: Log = None,
) -> None:
    """Perplexity of windows of books. Scores the last 100 tokens, and the whole window."""
    from longmamba_mlx.cli.eval_runs import Measurement, Texts, measure_perplexity

    measure_perplexity(Measurement(model, filter, lengths, samples, 0, json, plot, log), texts=Texts(text, encoding))


@evaluation.command()
def ruler(
    model: o.Model = "demo",
    lengths: Lengths = "4096,8192,16384",
    filter: Filters = "off,longmamba",
    samples: Samples = 20,
    tasks: Tasks = "",
    filler: Filler = None,
    encoding: o.Encoding = "",
    data: Data = None,
    seed: Seed = 0,
    json: JsonFile = None,
    plot: PlotFile = None,
    log: Log = None,
) -> None:
    """RULER's synthetic tasks. Question answering is added where --data holds squad.json and hotpotqa.json."""
    from longmamba_mlx.cli.eval_runs import Measurement, Texts, measure_ruler

    run = Measurement(model, filter, lengths, samples, seed, json, plot, log)
    measure_ruler(run, tasks=tasks, filler=Texts(filler or [], encoding), data=data)


@evaluation.command()
def longbench(
    model: o.Model = "demo",
    filter: Filters = "off,longmamba",
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Maximum number of documents per task.", metavar="N")
    ] = None,
    tasks: Tasks = "",
    data: Data = None,
    extended: Annotated[bool, typer.Option("--e", help="LongBench-E, by length groups.")] = False,
    offline: o.Offline = False,
    json: JsonFile = None,
    plot: PlotFile = None,
    log: Log = None,
) -> None:
    """LongBench, or LongBench-E with --e. Reads the published files in --data, or downloads them from the Hub."""
    from longmamba_mlx.cli.eval_runs import Measurement, measure_longbench

    run = Measurement(model, filter, "", samples or 0, 0, json, plot, log)
    measure_longbench(run, tasks=tasks, data=data, extended=extended, offline=offline)
