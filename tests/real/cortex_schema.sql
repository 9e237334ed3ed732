-- The tables of Cortex 0.1.1 as its SQLAlchemy models make them, written from reference/cortex.md, 1.2 and 9.
CREATE TABLE organizations (
    id SERIAL PRIMARY KEY, name VARCHAR(128) UNIQUE NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE users (
    id SERIAL PRIMARY KEY, org_id INTEGER REFERENCES organizations (id), username VARCHAR(255) UNIQUE NOT NULL,
    role VARCHAR(32) NOT NULL DEFAULT 'User', status VARCHAR(16) NOT NULL DEFAULT 'active',
    password_hash VARCHAR(255), created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE api_keys (
    id SERIAL PRIMARY KEY, user_id INTEGER REFERENCES users (id), org_id INTEGER REFERENCES organizations (id),
    prefix VARCHAR(16) UNIQUE NOT NULL, hash VARCHAR(256) NOT NULL,
    scopes VARCHAR(128) NOT NULL DEFAULT 'chat,completions,embeddings', ip_allowlist TEXT NOT NULL DEFAULT '',
    expires_at TIMESTAMPTZ, created_at TIMESTAMPTZ NOT NULL DEFAULT now(), last_used_at TIMESTAMPTZ,
    disabled BOOLEAN NOT NULL DEFAULT FALSE);
CREATE TABLE usage (
    id SERIAL PRIMARY KEY, org_id INTEGER, user_id INTEGER, key_id INTEGER, model_name VARCHAR(255), task VARCHAR(32),
    prompt_tokens INTEGER, completion_tokens INTEGER, total_tokens INTEGER, latency_ms INTEGER, status_code INTEGER,
    req_id VARCHAR(64), created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE models (
    id SERIAL PRIMARY KEY, name VARCHAR(255) NOT NULL, served_model_name VARCHAR(255) NOT NULL, repo_id VARCHAR(512),
    local_path VARCHAR(512), task VARCHAR(32) NOT NULL DEFAULT 'generate', engine_type VARCHAR(16) NOT NULL DEFAULT 'vllm',
    hf_token TEXT, hf_offline BOOLEAN, dtype VARCHAR(32), tp_size INTEGER DEFAULT 1,
    gpu_memory_utilization DOUBLE PRECISION DEFAULT 0.9, max_model_len INTEGER, enforce_eager BOOLEAN,
    selected_gpus TEXT, engine_image TEXT, engine_version TEXT, startup_timeout_sec INTEGER, request_timeout_sec INTEGER,
    engine_startup_args_json TEXT, engine_startup_env_json TEXT, request_defaults_json TEXT, temperature DOUBLE PRECISION,
    top_p DOUBLE PRECISION, ngl INTEGER, context_size INTEGER, batch_size INTEGER, threads INTEGER, parallel_slots INTEGER,
    flash_attention BOOLEAN, cache_type_k VARCHAR(16), cache_type_v VARCHAR(16), enable_embeddings BOOLEAN,
    system_prompt TEXT, state VARCHAR(16) NOT NULL DEFAULT 'stopped', archived BOOLEAN NOT NULL DEFAULT FALSE,
    port INTEGER, container_name VARCHAR(255), created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE recipes (
    id SERIAL PRIMARY KEY, name VARCHAR(255) UNIQUE NOT NULL, description TEXT, model_id INTEGER, model_name VARCHAR(255),
    served_model_name VARCHAR(255), mode VARCHAR(16), repo_id VARCHAR(512), local_path VARCHAR(512), task VARCHAR(32),
    engine_type VARCHAR(16), hf_token TEXT, ngl INTEGER, context_size INTEGER, request_defaults_json TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE config_kv (key VARCHAR(128) PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE chat_sessions (
    id VARCHAR(64) PRIMARY KEY, user_id INTEGER REFERENCES users (id), title VARCHAR(255), model_name VARCHAR(255),
    engine_type VARCHAR(32), constraints_json TEXT, created_at TIMESTAMPTZ NOT NULL, updated_at TIMESTAMPTZ NOT NULL);
CREATE TABLE chat_messages (
    id SERIAL PRIMARY KEY, session_id VARCHAR(64) REFERENCES chat_sessions (id) ON DELETE CASCADE, role VARCHAR(16),
    content TEXT, metrics_json TEXT, created_at TIMESTAMPTZ NOT NULL);

INSERT INTO organizations (name) VALUES ('Inn'), ('Stable/Yard');
INSERT INTO users (org_id, username, role, status, password_hash) VALUES
    (1, 'ada', 'Admin', 'active', '@PASSWORD@'),
    (1, 'bob', 'User', 'disabled', '@PASSWORD@'),
    (NULL, 'eve', 'User', 'active', NULL);
INSERT INTO api_keys (user_id, org_id, prefix, hash, scopes, ip_allowlist, disabled) VALUES
    (1, 1, 'AbCdEf12', '@KEY@', 'chat,completions', '', FALSE),
    (2, 1, 'Off12345', '@KEY@', 'chat', '10.0.0.7', TRUE),
    (3, NULL, 'Eve12345', '@KEY@', 'chat', '', FALSE),
    (1, NULL, 'Odd12345', '@KEY@', 'chat,telepathy', '', FALSE);
INSERT INTO models (name, served_model_name, local_path, engine_type, context_size, ngl, temperature, engine_version,
                    request_defaults_json, engine_startup_args_json, engine_startup_env_json, startup_timeout_sec,
                    hf_token, state, port, container_name, tp_size, gpu_memory_utilization) VALUES
    ('Tiny model', 'tiny', 'tiny-Q8_0.gguf', 'llamacpp', 512, 0, 0, 'b4000', '{"max_tokens": 12}',
     '[{"flag": "--no-warmup", "type": "flag", "value": true}]', '[{"key": "LLAMA_LOG_COLORS", "value": "off"}]', 90,
     'hf_secret', 'running', 32768, 'llamacpp-model-1', NULL, NULL),
    ('Same name', 'tiny', 'tiny-Q8_0.gguf', 'llamacpp', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, 'stopped', NULL, NULL, NULL, NULL),
    ('Gone', 'gone', 'gone.gguf', 'llamacpp', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, 'stopped', NULL, NULL, NULL, NULL),
    ('With spaces', 'my model', '/models/tiny-Q8_0.gguf', 'llamacpp', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, 'failed', NULL, NULL, NULL, NULL);
INSERT INTO models (name, served_model_name, repo_id, engine_type, dtype, tp_size, max_model_len, archived) VALUES
    ('online', 'online', 'org/repo', 'vllm', 'bfloat16', 2, 4096, TRUE);
INSERT INTO recipes (name, description, model_id, model_name, served_model_name, mode, local_path, task, engine_type,
                     hf_token, context_size, request_defaults_json) VALUES
    ('my recipe', 'good', 1, 'Tiny model', 'tiny', 'offline', 'tiny-Q8_0.gguf', 'generate', 'llamacpp', 'hf_secret', 256,
     '{"top_p": 0.5}');
INSERT INTO config_kv VALUES
    ('models_base_dir', '/var/cortex/models'),
    ('model_registry', '{"tiny": {"url": "http://llamacpp-model-1:8000", "task": "generate"},
      "elsewhere": {"url": "http://10.0.0.9:8000", "task": "embed", "engine_type": "vllm"}}');
INSERT INTO chat_sessions VALUES
    ('11111111-2222-3333-4444-555555555555', 1, 'Hello', 'tiny', 'llamacpp', '{"context_size": 512}',
     '2026-01-01T00:00:00Z', '2026-01-01T00:01:00Z'),
    ('99999999-2222-3333-4444-555555555555', 3, 'Lost', 'tiny', 'llamacpp', NULL,
     '2026-01-01T00:00:00Z', '2026-01-01T00:01:00Z');
INSERT INTO chat_messages (session_id, role, content, metrics_json, created_at) VALUES
    ('11111111-2222-3333-4444-555555555555', 'user', 'Hello', NULL, '2026-01-01T00:00:10Z'),
    ('11111111-2222-3333-4444-555555555555', 'assistant', 'Hi.', '{"tok_per_s": 9.5}', '2026-01-01T00:00:20Z');
INSERT INTO usage (model_name, task) VALUES ('tiny', 'generate'), ('tiny', 'generate');
