"""Chat templates in Jinja2, set up by transformers itself, beside `spo render`.

templates.py DIR…          renders all *.jinja in the folders on 16 conversations with both programs (SPO names spo; with
                           VERBOSE=1 also what both refuse, and why)
templates.py --constructs  writes the texts of fixtures/jinja/constructs.json anew
templates.py --chats       writes fixtures/jinja/chats.json anew: the templates beside it on the same conversations
"""

import glob
import json
import os
import subprocess
import sys
import tempfile

from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
CONSTRUCTS = os.path.join(ROOT, "fixtures", "jinja", "constructs.json")
CHATS = os.path.join(ROOT, "fixtures", "jinja", "chats")
SPECIAL = {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}


def turn(role, content, **fields):
    return {"role": role, "content": content, **fields}


def call(arguments, name="weather"):
    return {"id": "abc123XYZ", "type": "function", "function": {"name": name, "arguments": arguments}}


def conversations():
    user, said = turn("user", "How cold is it?"), turn("assistant", "It is cold.")
    result = turn("tool", '{"degrees": -3}', name="weather", tool_call_id="abc123XYZ")
    properties = {
        "city": {"type": "string", "description": "A city, \"quoted\" & <marked>\nwith ö", "enum": ["Oslo", "Bern"]},
        "days": {"type": ["integer", "null"], "default": 3},
        "exact": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "options": {"type": "object", "properties": {"unit": {"type": "string"}}},
    }
    tools = [
        {"type": "function", "function": {"name": "weather", "description": "Asks for the weather.", "parameters": {
            "type": "object", "properties": properties, "required": ["city"]}, "return": {"type": "string"}}},
        {"type": "function", "function": {"name": "now", "description": "Tells the time.", "parameters": {
            "type": "object", "properties": {}}}},
    ]
    asked = turn("assistant", "", tool_calls=[call({"city": "Oslo", "days": 3})])
    bare = {"role": "assistant", "tool_calls": asked["tool_calls"]}
    deep = {"tags": ["a", 'b "c"'], "options": {"unit": [1, 2.5, True, None]}, "exact": False, "days": None, "f": 1e16}
    two = turn("assistant", "Let me see.", tool_calls=[call(deep), call({}, "now")])
    thought = turn("assistant", "<think>\nIt may be.\n</think>\n\nIt is cold.")
    return {
        "chat": {"messages": [user, said, turn("user", "  And\ttomorrow? \n"), turn("assistant", "Warm.\n")]},
        "system": {"messages": [turn("system", "Be kind."), user, said]},
        "thinking": {"messages": [user, thought, turn("user", "Why?"), thought]},
        "reasoning": {"messages": [user, turn("assistant", "Yes.", reasoning_content="It may be."), user, said]},
        "tools": {"messages": [user, asked, result, said], "tools": tools},
        "tools, null content": {"messages": [user, {**asked, "content": None}, result, said], "tools": tools},
        "tools, no content": {"messages": [user, bare, result, said], "tools": tools},
        "tools, deep": {"messages": [user, two, result, {**result, "name": "now"}, said], "tools": tools},
        "tools, text": {"messages": [user, turn("assistant", "", tool_calls=[call('{"city": "Oslo"}')]), result], "tools": tools},
        "parts": {"messages": [turn("user", [{"type": "text", "text": "How "}, {"type": "text", "text": "cold?"}]), said]},
        "system parts": {"messages": [turn("system", [{"type": "text", "text": "Be kind."}]), user, said]},
        "developer": {"messages": [turn("developer", "Be kind."), user, said]},
        "empty": {"messages": [turn("user", ""), turn("assistant", "")]},
        "system alone": {"messages": [turn("system", "Be kind.")]},
        "off": {"messages": [user, said], "chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "high"}},
        "on": {"messages": [turn("system", "Be kind. /no_think"), user, said], "tools": tools,
               "chat_template_kwargs": {"enable_thinking": True, "documents": [{"title": "T", "text": "It's cold."}]}},
    }


def with_jinja(source, conversation, opening):
    variables = {**SPECIAL, **conversation.get("chat_template_kwargs", {})}
    documents = variables.pop("documents", None)
    try:
        texts, _ = render_jinja_template(
            [conversation["messages"]], conversation.get("tools"), documents, source,
            add_generation_prompt=opening, **variables)
        return texts[0]
    except Exception as error:  # whatever a template raises
        return f"ERROR {type(error).__name__}: {error}"


def with_spo(folder, conversation, opening):
    path = os.path.join(folder, "conversation.json")
    with open(path, "w") as file:
        json.dump(conversation, file)
    command = [os.environ.get("SPO", "spo"), "render", "--tokenizer", folder, "--messages", path, "--json"]
    done = subprocess.run(command + ["--add-generation-prompt"] * opening, capture_output=True, text=True)
    return json.loads(done.stdout)["text"] if done.returncode == 0 else "ERROR " + done.stderr.strip()


def tokenizer(folder, source):
    with open(os.path.join(ROOT, "fixtures", "trl", "llama-tiny-policy", "tokenizer.json")) as file:
        base = json.load(file)
    # A BOS or EOS must be a token.
    first = base["added_tokens"][0]
    missing = [text for text in SPECIAL.values() if text not in {token["content"] for token in base["added_tokens"]}]
    ids = range(len(base["model"]["vocab"]), len(base["model"]["vocab"]) + len(missing))
    base["added_tokens"] += [{**first, "id": id, "content": text} for id, text in zip(ids, missing)]
    for name, text in [
        ("tokenizer.json", json.dumps(base)),
        ("tokenizer_config.json", json.dumps({**SPECIAL, "tokenizer_class": "PreTrainedTokenizerFast"})),
        ("chat_template.jinja", source),
    ]:
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)


def compare(folders):
    renders = silent = refused = both = 0
    for path in sorted(path for folder in folders for path in glob.glob(os.path.join(folder, "*.jinja"))):
        source = open(path).read()
        with tempfile.TemporaryDirectory() as folder:
            tokenizer(folder, source)
            for name, conversation in conversations().items():
                for opening in (False, True):
                    expected, found = with_jinja(source, conversation, opening), with_spo(folder, conversation, opening)
                    renders += 1
                    if expected == found:
                        continue
                    loud = found.startswith("ERROR ")
                    if loud and expected.startswith("ERROR "):
                        both += 1
                        if os.environ.get("VERBOSE"):
                            print(os.path.basename(path), name, opening, "both refuse", expected[:200], found[:200], sep="\n   ")
                        continue
                    refused, silent = refused + loud, silent + (not loud)
                    print(os.path.basename(path), name, opening, "refused" if loud else "DIFFERS", repr(expected)[:200], repr(found)[:400], sep="\n   ")
    print(f"{renders} renders, {both} refused by both: {silent} differ in silence, {refused} refused that Jinja renders")
    return 1 if silent or refused else 0


def write_constructs():
    with open(CONSTRUCTS) as file:
        golden = json.load(file)
    for case in golden["cases"]:
        case.pop("text", None)
        case.pop("error", None)
        try:
            variables = {"documents": None, "tools": None, "add_generation_prompt": False, **SPECIAL, **golden["variables"]}
            case["text"] = _compile_jinja_template(case["template"]).render(**variables)
        except Exception as error:
            case["error"] = f"{type(error).__name__}: {error}"
    with open(CONSTRUCTS, "w") as file:
        json.dump(golden, file, ensure_ascii=False, indent=1)
        file.write("\n")


def write_chats():
    """Errors stand there by their class alone: their words are Jinja's own."""
    cases, rendered = conversations(), {}
    for path in sorted(glob.glob(os.path.join(CHATS, "*.jinja"))):
        of_file = rendered[os.path.basename(path)] = {}
        with open(path) as file:
            source = file.read()
        for name, conversation in cases.items():
            for opening in (False, True):
                text = with_jinja(source, conversation, opening)
                key = f"{name}, opened" if opening else name
                of_file[key] = {"error": text.split()[1].rstrip(":")} if text.startswith("ERROR ") else {"text": text}
    with open(CHATS + ".json", "w") as file:
        json.dump({"special": SPECIAL, "cases": cases, "rendered": rendered}, file, ensure_ascii=False, indent=1)
        file.write("\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--constructs"]:
        write_constructs()
    elif sys.argv[1:] == ["--chats"]:
        write_chats()
    else:
        sys.exit(compare(sys.argv[1:]))
