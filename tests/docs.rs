//! What the public sees of the program is generated, committed, and compared here. `VITA_BLESS=1` rewrites it.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vita_stream::config::{self, spelling};
use vita_stream::launch::{self, Fallback};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn same_as_committed(path: &str, text: &str) {
    let path = root().join(path);
    if std::env::var_os("VITA_BLESS").is_some() {
        return std::fs::write(path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "{} is out of date (VITA_BLESS=1 rewrites it); now:\n{text}",
        path.display()
    );
}

#[test]
fn the_schema_is_the_one_committed() {
    let schema = serde_json::to_string_pretty(config::schema()).unwrap();
    same_as_committed("configs/vita.schema.json", &format!("{schema}\n"));
}

fn help(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_vita"))
        .args(args)
        .arg("--help")
        .env_remove("COLUMNS")
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_line_is_the_one_committed() {
    let overview = help(&[]);
    let commands = overview
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let commands: Vec<_> = commands
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.contains(&"run"), "{overview}");
    let mut text = String::from("# The command line\n\nWhat `--help` prints.\n");
    writeln!(text, "\n## vita\n\n```text\n{}\n```", overview.trim_end()).unwrap();
    for command in commands {
        writeln!(
            text,
            "\n## vita {command}\n\n```text\n{}\n```",
            help(&[command]).trim_end()
        )
        .unwrap();
    }
    same_as_committed("docs/cli.md", &text);
}

const INTRODUCTION: &str = r#"# The config

A deployment is one TOML file. `vita check FILE` says all that is wrong with it, `vita explain FILE` what it becomes. The first line of
the files in `configs/` lets editors that know [taplo](https://taplo.tamasfe.dev) complete keys and show what is written here.

Unknown keys are refused. Relative paths start at the folder of the config. Units stand in names: `_secs`, `_ms`, `_mib`.

Where a value is *text*, `${env:NAME}` stands for a variable of the environment, `${env:NAME:default}` also has a value for when it is
not set, and `{ file = "path" }` is the content of a file. So secrets need not stand in the config; one that does is
reported by `vita check`. What is referred to is never printed.
"#;

const TEMPLATES: &str = r#"
## Templates

A source becomes the text of a GStreamer pipeline, as `gst-launch-1.0` takes it; `vita explain` prints the command. The text of each type
is a template in `pipelines/`, and `type = "launch"` takes one of your own:

- `#` at the start of a word begins a comment.
- `name=${parameter}` puts a value in, `name=${parameter:default}` has one for when none is given, and `name=${parameter?}` is left out
  altogether then, so that the element's own default holds. Values are escaped: one can set its property and nothing else, so leave
  out quotes.
- A line `[video]` or `[audio]` begins the part that is left out when the source has `video = "off"` or `audio = "off"`. `[model]` begins one
  that is there only with a model, `[no model]` one that is there only without, and `[video, model]` takes both.

What the program relies on: the media source is named `source` (a second one `source-…`); when nothing passes over one of its pads, it
has stalled. What is done with video is a bin `( name=video … )`, with audio `( name=audio … )`, each with its own sinks; a bin that the
source gives no stream for is removed, so one template serves cameras with both and with either. Queues are bounded.
Behind live sources they are `leaky=downstream`, which drops the oldest data, and sinks have `async=false`. The element that answers is
`vitallmsink name=llm`; commands reach it by that name.

The parameters of a template of your own are those under `parameters`, and those of every source: `fps`, as a fraction such as `1/2`,
`vad.threshold` and its like, and `model.name` and its like.

`vita explain` prints secrets as variables that the shell expands. gst-launch-1.0 reads what they expand to once more: there, a secret
with a backslash in it must have two. The program itself takes it as it is. And while the program removes a branch that gets no stream,
gst-launch-1.0 waits for it with a file: say `video = "off"` or `audio = "off"`.

The way back, `vita explain --toml COMMAND`, prints the source that becomes a given command.
"#;

#[test]
fn the_reference_is_the_one_committed() {
    let schema = config::schema();
    let mut text = String::from(INTRODUCTION);
    text.push_str("\n## Top level\n\n");
    keys(&mut text, schema, "", None);
    for (title, name) in [
        ("`[nats]`", "Nats"),
        ("`[model]`, and `model` of a source", "Model"),
        ("`[defaults]`, and keys of every source", "Common"),
    ] {
        let definition = &schema["$defs"][name];
        section(&mut text, title, definition, None);
    }
    for (title, name) in [("`vad`", "Vad"), ("`retry`", "Retry")] {
        section(&mut text, title, &schema["$defs"][name], None);
    }
    section(&mut text, "`[[source]]`", &schema["$defs"]["Source"], None);
    for variant in schema["$defs"]["Source"]["oneOf"].as_array().unwrap() {
        let source_type = variant["properties"]["type"]["const"].as_str().unwrap();
        let definition = follow(variant);
        section(
            &mut text,
            &format!("`type = \"{source_type}\"`"),
            definition,
            Some(source_type),
        );
    }
    text.push_str(TEMPLATES);
    same_as_committed("docs/configuration.md", &text);
}

fn section(text: &mut String, title: &str, definition: &Value, source_type: Option<&str>) {
    write!(text, "\n## {title}\n\n").unwrap();
    if let Some(description) = definition["description"].as_str() {
        write!(text, "{}\n\n", one_line(description)).unwrap();
    }
    let common = if title == "`[[source]]`" {
        Some("Common")
    } else {
        None
    };
    keys(text, definition, common.unwrap_or(""), source_type);
}

/// A table of the keys of a definition, but those of another.
fn keys(text: &mut String, definition: &Value, but: &str, source_type: Option<&str>) {
    text.push_str("| key | value | |\n|---|---|---|\n");
    let others = &config::schema()["$defs"][but]["properties"];
    let required = definition["required"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for (key, schema) in definition["properties"].as_object().unwrap() {
        if others.get(key).is_some() {
            continue;
        }
        let mut description = schema["description"]
            .as_str()
            .map(one_line)
            .unwrap_or_default();
        let target = target(schema);
        if description.is_empty() {
            description = target["description"]
                .as_str()
                .map(one_line)
                .unwrap_or_default();
        }
        if required.iter().any(|name| name == key) {
            description.push_str(" Required.");
        }
        if let Some(default) =
            source_type.and_then(|source_type| template_default(source_type, key))
        {
            write!(description, " Default: `{default}`.").unwrap();
        }
        for word in target["oneOf"].as_array().into_iter().flatten() {
            if let (Some(word), Some(meaning)) =
                (word["const"].as_str(), word["description"].as_str())
            {
                write!(description, " `{word}`: {}", one_line(meaning)).unwrap();
            }
        }
        writeln!(text, "| `{key}` | {} | {description} |", kind(schema)).unwrap();
    }
    if but.is_empty() && definition["properties"].get("fps").is_some() {
        let default = template_default("rtsp", "fps").unwrap();
        text.push_str(&format!(
            "\nWithout `fps`, the templates of `pipelines/` sample {default} frame a second.\n"
        ));
    }
}

/// What the template has for a parameter, as it is written in a config.
fn template_default(source_type: &str, key: &str) -> Option<String> {
    let parameters = launch::builtin(source_type)?.parameters();
    match &parameters
        .iter()
        .find(|parameter| parameter.name == key)?
        .fallback
    {
        Fallback::Default(default) => Some(spelling::from_pipeline(key, default)),
        Fallback::Required | Fallback::LeaveOut => None,
    }
}

fn follow(schema: &Value) -> &'static Value {
    let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
    &config::schema()["$defs"][name]
}

/// The definition of a key that may be left out.
fn target(schema: &Value) -> &Value {
    match schema["anyOf"]
        .as_array()
        .and_then(|any| any.iter().find(|schema| schema.get("$ref").is_some()))
    {
        Some(reference) => follow(reference),
        None if schema.get("$ref").is_some() => follow(schema),
        None => schema,
    }
}

fn kind(schema: &Value) -> String {
    let target = target(schema);
    let names = match &target["type"] {
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .find(|name| *name != "null"),
        name => name.as_str(),
    };
    let range = match (target["minimum"].as_f64(), target["maximum"].as_f64()) {
        (Some(low), Some(high)) if low < high => format!(", {low} to {high}"),
        (Some(low), Some(_)) => format!(", {low}"),
        _ => String::new(),
    };
    match names {
        Some("integer") => format!("integer{range}"),
        Some("number") => format!("number{range}"),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("string") => "string".to_owned(),
        Some("array") => "list of tables".to_owned(),
        Some(_) => "table".to_owned(),
        None if target["oneOf"].is_array() => "word".to_owned(),
        None => "text".to_owned(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}
