#!/usr/bin/env python3
"""Renders conversations with chat templates as `transformers` does, and records the texts.

    scratch/bin/pip install transformers==5.* jinja2
    scratch/bin/python make_templates.py OUTPUT_FILE [FOLDER_WITH_JINJA_FILES]

The templates are our own, each in the published format of a family and with the functions that its
template calls. With a folder its `*.jinja` files are rendered instead: the long comparison, for which
COMMONS_TEMPLATE_CASES names the output. A case that the template refuses has its words in `error`.
"""

import datetime
import json
import pathlib
import sys

from transformers.utils import chat_template_utils

NOW = 1_753_794_321  # 2025-07-29 13:05:21 UTC

CHATML = """{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}
{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

LLAMA3 = """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {%- if message.content is string %}{{- message.content | trim }}{%- else %}{%- for part in message.content %}{%- if part.type == 'text' %}{{- part.text | trim }}{%- endif %}{%- endfor %}{%- endif %}{{- '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("This model only supports single tool-calls at once!") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + tool_call.name + '", "parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}{{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

QWEN3 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n<tools>" }}{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}{{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}{%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}{%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}{%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}{{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}{%- else %}{{- '<|im_start|>' + message.role + '\\n' + content }}{%- endif %}
        {%- if message.tool_calls %}{%- for tool_call in message.tool_calls %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}{%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}{%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}{{- '}\\n</tool_call>' }}
        {%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}{{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}{%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""

GEMMA = """{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- if messages[0]['content'] is string -%}{%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}{%- else -%}{%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- endif -%}{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first_user_prefix = "" -%}{%- set loop_messages = messages -%}{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}{%- endif -%}
    {%- if (message['role'] == 'assistant') -%}{%- set role = "model" -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}{{ message['content'] | trim }}{%- elif message['content'] is iterable -%}{%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- else -%}{{ raise_exception("Invalid content type") }}{%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{'<start_of_turn>model\\n'}}{%- endif -%}"""

PHI3 = """{% for message in messages %}{% if message['role'] in ['system', 'user'] %}{{'<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{% generation %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endgeneration %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}{%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}{{- "[AVAILABLE_TOOLS] [" }}{%- for tool in tools %}{%- set tool = tool.function %}{{- '{"type": "function", "function": {' }}{%- for key, val in tool.items() if key != "return" %}{%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endfor %}{{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}{%- endfor %}{{- "[/AVAILABLE_TOOLS]" }}{%- endif %}
        {%- if loop.last and system_message is defined %}{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}{%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}{{- "[TOOL_CALLS] [" }}{%- for tool_call in message.tool_calls %}{%- set out = tool_call.function|tojson %}{{- out[:-1] }}{%- if not tool_call.id is defined or tool_call.id|length != 9 %}{{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}{%- endif %}{{- ', "id": "' + tool_call.id + '"}' }}{%- endfor %}{{- "]" + eos_token }}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token }}
    {%- elif message["role"] == "tool" %}{{- '[TOOL_RESULTS] {"content": ' + message.content|string + "}[/TOOL_RESULTS]" }}
    {%- else %}{{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}{%- endif %}
{%- endfor %}"""

PYTHON = """{% macro show(value, name='x') -%}{{ name }}={{ value }};{%- endmacro %}
{%- set ns = namespace(count=0, seen=[]) -%}
{%- for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{% set ns.count = ns.count + 1 %}{% set ns.seen = ns.seen + [m.role] %}{% if ns.count > 2 %}{% break %}{% endif %}{% endfor %}
{{- show(ns.seen, 'seen') }}{{ show(messages[0]) }}{{ show(true) }}{{ show(none) }}{{ show(1.0) }}{{ show(ns.count / 2) }}{{ show(7 // 2) }}
{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'in', ['user']) | list | length }}
{{ 'aXbXc'.split('X') }} {{ 'a b'.title() }} {{ ' x '.strip() ~ '|' }} {{ 'abc'.replace('b', "'") }} {{ 'abc'[::-1] }} {{ 'x' in {'x': 1} }} {{ {'a': [1, 2.5, none, true, "it's"]} }}
{{ {'b': 1, 'a': "<é>'"} | tojson }} {{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true, ensure_ascii=true) }} {{ [1, {'k': []}] | tojson(indent=2) }} {{ [1, 2] | tojson(separators=(',', ':')) }} {{ {1: 1e20, 'f': 0.00001} | tojson }}
{{ 'a string' is sequence }} {{ 'a string' is iterable }} {{ 'a string' is mapping }} {{ {} is mapping }} {{ messages is sequence }} {{ undefined_name is defined }} {{ undefined_name | default('d') }} {{ undefined_name }}
{%- for key, value in {'z': 1, 'a': 2}.items() %}{{ loop.index }}{{ key }}{{ value }}{{ loop.last }} {% endfor %}{% for a in [1, 2, 3] %}{{ loop.previtem if loop.previtem is defined else '-' }}{{ loop.cycle('o', 'e') }}{% endfor %}
{{ 'Hello'.lower().startswith('he') }} {{ 'Hello'.upper().endswith('LO') }} {{ 'a,b'.split(',', 1)[0] }} {{ 'xxaxx'.lstrip('x') }} {{ 'xxaxx'.rstrip('x') }} {{ ['b', 'a'] | sort | first }} {{ [3, 1] | max }} {{ 'ab' * 2 }} {{ '%-5s' if false else 'else' }} {{ 5 % 3 }} {{ 2 ** 3 }}
{{ messages[0].get('absent', 'fallback') }} {{ messages[0].keys() | list }} {{ (messages | last).role }} {{ 'x' if messages | length > 1 else 'y' }} {{ strftime_now('%Y-%m-%d %H:%M:%S %A %a %B %b %j %p %I %y %-d %%') }}"""

TEMPLATES = {"chatml": CHATML, "llama2": LLAMA2, "llama3": LLAMA3, "qwen3": QWEN3, "gemma": GEMMA, "phi3": PHI3,
    "mistral": MISTRAL, "python": PYTHON}

SYSTEM = {"role": "system", "content": "You are terse. "}
ASK = {"role": "user", "content": " What is 2+2?\n"}
SAID = {"role": "assistant", "content": "<think>\nEasy: \"4\".\n</think>\n\nIt is 4.  "}
THANKS = {"role": "user", "content": "Thanks, é 🦙 <b>&'quoted'\"</b>!"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdef123", "type": "function",
    "function": {"name": "weather", "arguments": {"place": "Zürich", "days": 2, "exact": True, "scale": 1.0, "note": None}}}]}
RESULT = {"role": "tool", "name": "weather", "content": "{\"degrees\": 21}"}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The weather's \"state\".", "parameters":
    {"type": "object", "properties": {"place": {"type": "string", "enum": ["Zürich", "Köln"]}, "days": {"type": "integer", "default": 1}},
     "required": ["place"]}}}]
PARTS = {"role": "user", "content": [{"type": "text", "text": "First part. "}, {"type": "text", "text": "Second."}]}

CONVERSATIONS = [
    {"messages": [ASK]},
    {"messages": [SYSTEM, ASK, SAID, THANKS]},
    {"messages": [SYSTEM, ASK, SAID, THANKS], "variables": {"enable_thinking": False}},
    {"messages": [ASK, SAID], "adds_generation_prompt": False},
    {"messages": [ASK, ASK]},
    {"messages": [SYSTEM, ASK], "tools": TOOLS},
    {"messages": [SYSTEM, ASK, CALL, RESULT, SAID, THANKS], "tools": TOOLS, "now": True},
    {"messages": [ASK, CALL, RESULT], "tools": TOOLS},
    {"messages": [PARTS], "now": True},
    {"messages": [SYSTEM, THANKS], "documents": [{"title": "T", "text": "D"}], "now": True},
]


def render(source, case):
    template = chat_template_utils._compile_jinja_template(source)
    moment = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)
    template.globals.pop("strftime_now", None)
    template.environment.globals.pop("strftime_now", None)
    extra = dict(case.get("variables", {}))
    if case.get("now"):
        extra["strftime_now"] = moment.strftime
    return template.render(messages=case["messages"], tools=case.get("tools"), documents=case.get("documents"),
        add_generation_prompt=case.get("adds_generation_prompt", True), bos_token="<s>", eos_token="</s>", **extra)


def main():
    output = pathlib.Path(sys.argv[1])
    templates = TEMPLATES
    if len(sys.argv) > 2:
        paths = sorted(pathlib.Path(sys.argv[2]).glob("*.jinja"))
        templates = {path.stem: path.read_text() for path in paths}
    cases = []
    for name, source in templates.items():
        for index, case in enumerate(CONVERSATIONS):
            try:
                result = {"text": render(source, case)}
            except Exception as error:
                result = {"error": str(error)}
            cases.append({"template": name, "conversation": index, **result})
    record = {"now": NOW, "templates": templates, "conversations": CONVERSATIONS, "cases": cases}
    output.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
