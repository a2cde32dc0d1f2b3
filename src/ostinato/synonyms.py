"""Names that other libraries use for what is called otherwise here."""

from __future__ import annotations

SYNONYMS: tuple[tuple[str, ...], ...] = tuple(
    tuple(line.split())
    for line in (
        "max_new_tokens max_tokens max_length max_completion_tokens num_predict n_predict",
        "lr learning_rate step_size",
        "batch_tokens batch_size batch per_device_train_batch_size minibatch",
        "prompt prompt_template template instruction",
        "system system_prompt system_message",
        "texts words phrases terms strings forbidden banned stopwords blacklist blocklist keywords",
        "patterns pattern regex regexes expression",
        "n samples num_samples n_samples num_return_sequences candidates best_of count",
        "count num_images n_images samples n num_samples",
        "top_p nucleus p",
        "top_k k",
        "temperature temp",
        "repetition_penalty repeat_penalty penalty_repeat frequency_penalty",
        "seed random_state random_seed rng",
        "epochs num_epochs n_epochs num_train_epochs passes",
        "steps num_steps max_steps n_steps iterations iters num_inference_steps",
        "limit max maximum max_items head",
        "min minimum least threshold at_least min_score lower mean",
        "max maximum most at_most upper",
        "above threshold min minimum at_least greater_than",
        "below max maximum at_most less_than",
        "over window times repeats",
        "min_delta tolerance delta eps epsilon",
        "tolerance min_delta delta eps epsilon",
        "patience early_stopping wait",
        "rounds retries attempts tries max_retries max_rounds max_attempts",
        "particles n samples num_particles",
        "input data dataset items rows file",
        "output out outfile result save_to output_dir out_dir destination",
        "out output outfile output_dir out_dir save_to destination",
        "stop stop_sequences stop_strings stop_words",
        "guidance guidance_scale cfg cfg_scale",
        "width d_model hidden_size n_embd",
        "layers n_layers num_layers n_layer depth",
        "heads n_heads num_heads n_head",
        "context context_length n_ctx block_size max_seq_length",
        "vocab_size vocabulary",
        "warmup_steps warmup",
        "slots parallel concurrency workers max_num_seqs",
        "model model_name model_path checkpoint model_id",
        "check checks validators rules assertions",
        "strategy method mode",
        "schema json_schema",
        "question criterion criteria rubric",
    )
)
"""Names that mean the same in this field, in groups; the first that is known is meant."""
