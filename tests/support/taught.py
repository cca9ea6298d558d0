"""A model's file with another chat template: the same weights and words, told otherwise how to talk."""

from pathlib import Path

import gguf


def taught(source: Path, target: Path, template: str) -> Path:
    """Write the model at `source` to `target`, with `template` as its chat template."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in {"general.architecture", "tokenizer.chat_template"}:
            continue
        kind, *of = field.types
        writer.add_key_value(name, field.contents(), kind, sub_type=of[-1] if of else None)
    writer.add_chat_template(template)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
