"""Chat templates that teach tools and thoughts the ways published models do, written anew and as short as it goes."""

TOOLS_HERMES = (
    "{%- if tools %}<|system|>You may call functions. They are described in <tools></tools>:\n<tools>"
    "{%- for tool in tools %}\n{{ tool | tojson }}{%- endfor %}\n</tools>\nFor each call answer with JSON in "
    '<tool_call></tool_call>:\n<tool_call>\n{"name": <function>, "arguments": <object>}\n</tool_call><|end|>'
    "{%- endif %}"
)
TURNS_HERMES = (
    "{%- for m in messages %}"
    "{%- if m.role == 'tool' %}<|user|>\n<tool_response>\n{{ m.content }}\n</tool_response><|end|>"
    "{%- else %}<|{{ m.role }}|>{{ m.content }}"
    "{%- for call in m.tool_calls or [] %}{%- set f = call.function %}"
    '\n<tool_call>\n{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}\n</tool_call>'
    "{%- endfor %}<|end|>{%- endif %}{%- endfor %}"
)
HERMES = TOOLS_HERMES + TURNS_HERMES + "{%- if add_generation_prompt %}<|assistant|>{%- endif %}"
"""As Hermes 2 Pro, Qwen 2.5 and their many children."""

THINKING = HERMES.replace(
    "<|{{ m.role }}|>{{ m.content }}",
    "<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n"
    "{% endif %}{{ m.content }}",
).replace(
    "<|assistant|>{%- endif %}",
    "<|assistant|>{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{%- endif %}",
)
"""As Qwen 3: the model opens its thought by itself, unless it is told not to think."""

OPENED = HERMES.replace("<|assistant|>{%- endif %}", "<|assistant|><think>\n{%- endif %}")
OPENED += "{# </think> #}"
"""As DeepSeek R1 and QwQ: the prompt opens the thought."""

LLAMA = (
    "{%- for m in messages %}"
    "{%- if m.role == 'user' and loop.first and tools %}<|user|>Given the functions, answer with JSON for a call with "
    'its proper arguments: {"name": function name, "parameters": arguments}.\n'
    "{%- for tool in tools %}\n{{ tool | tojson(indent=4) }}{%- endfor %}\n{{ m.content }}<|end|>"
    "{%- elif m.tool_calls %}{%- if not m.tool_calls | length == 1 %}"
    "{{ raise_exception('This model only supports single tool-calls at once!') }}{%- endif %}"
    "{%- set f = m.tool_calls[0].function %}"
    '<|assistant|>{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}<|end|>'
    "{%- elif m.role == 'tool' %}<|user|>{{ m.content | tojson }}<|end|>"
    "{%- else %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>{%- endif %}"
)
"""As Llama 3.1 and 3.2: one call, announced by nothing but its JSON."""

MISTRAL = (
    "{{ bos_token }}{%- for m in messages %}"
    "{%- if m.role == 'user' %}{%- if tools and loop.last %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]"
    "{%- endif %}[INST] {{ m.content }}[/INST]"
    "{%- elif m.tool_calls %}[TOOL_CALLS] [{%- for call in m.tool_calls %}"
    "{%- if call.id | length != 9 %}{{ raise_exception('ids have nine letters and digits') }}{%- endif %}"
    '{{ (call.function | tojson)[:-1] }}, "id": "{{ call.id }}"}{%- if not loop.last %}, {% endif %}{%- endfor %}]</s>'
    '{%- elif m.role == \'tool\' %}[TOOL_RESULTS] {"content": {{ m.content }}, "call_id": "{{ m.tool_call_id }}"}'
    "[/TOOL_RESULTS]{%- else %} {{ m.content }}</s>{%- endif %}{%- endfor %}"
)
"""As Mistral 7B v0.3 and Nemo: a control token, then a list whose calls have ids."""

ARGS = (
    "{%- if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{%- endif %}{%- for m in messages %}"
    "{%- if m.role == 'user' %}[INST]{{ m.content }}[/INST]{%- elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}"
    "[/TOOL_RESULTS]{%- else %}{{ m.content }}{%- for call in m.tool_calls or [] %}"
    "[TOOL_CALLS]{{ call.function.name }}[ARGS]{{ call.function.arguments | tojson }}{%- endfor %}</s>{%- endif %}"
    "{%- endfor %}"
)
"""As Mistral Small 3.2 and Devstral: name and arguments between control tokens."""

DEEPSEEK = (
    "{%- for tool in tools or [] %}{{ tool.function.name }}: {{ tool.function.parameters | tojson }}\n{%- endfor %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}<|user|>{{ m.content }}"
    "{%- elif m.role == 'tool' %}<|tool_output|>{{ m.content }}"
    "{%- elif m.content is none %}<|assistant|><|tool_calls_begin|>{%- for call in m.tool_calls %}"
    "<|tool_call_begin|>function<|tool_sep|>{{ call.function.name }}\n```json\n"
    "{{ '' + call.function.arguments }}\n```<|tool_call_end|>{%- if not loop.last %}\n{% endif %}{%- endfor %}"
    "<|tool_calls_end|></s>{%- else %}<|assistant|>{{ m.content.split('</think>')[-1] }}</s>{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|assistant|><think>\n{%- endif %}"
)
"""As DeepSeek V3 and R1: content is none where there are calls, and arguments are text already."""

GRANITE = (
    "{%- if tools %}<|system|>{{ tools | tojson(indent=4) }}<|end|>{%- endif %}{%- for m in messages %}"
    "{%- if m.tool_calls %}<|assistant|><|tool_call|>[{%- for call in m.tool_calls %}{{ call.function | tojson }}"
    "{%- if not loop.last %}, {% endif %}{%- endfor %}]<|end|>{%- else %}<|{{ m.role }}|>{{ m.content }}<|end|>"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}<|assistant|>{%- endif %}"
)
"""As Granite 3 and Phi 4 mini: a marker before a list of functions as they are."""

ACTIONS = (
    "{%- for tool in tools or [] %}{{ tool.function | tojson }}{%- endfor %}{%- for m in messages %}"
    "{%- if m.tool_calls %}<|assistant|><|START_ACTION|>[{%- for call in m.tool_calls %}\n"
    '    {"tool_call_id": "{{ call.id }}", "tool_name": "{{ call.function.name }}", "parameters": '
    "{{ call.function.arguments | tojson }}}{%- if not loop.last %},{% endif %}{%- endfor %}\n]<|END_ACTION|><|end|>"
    "{%- else %}<|{{ m.role }}|>{{ m.content }}<|end|>{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>{%- endif %}{# <|START_THINKING|><|END_THINKING|> #}"
)
"""As Command R7B: ids first, names under a key of their own."""

XML = (
    "{%- for tool in tools or [] %}{{ tool | tojson }}{%- endfor %}{%- for m in messages %}<|{{ m.role }}|>"
    "{{ m.content }}{%- for call in m.tool_calls or [] %}<tool_call>{{ call.function.name }}"
    "{%- for key, value in call.function.arguments.items() %}<arg_key>{{ key }}</arg_key>{{ value }}{%- endfor %}"
    "</tool_call>{%- endfor %}<|end|>{%- endfor %}{%- if add_generation_prompt %}<|assistant|>{%- endif %}"
)
"""As GLM 4.5: arguments that are no JSON."""
