BEGIN TRANSACTION;
CREATE TABLE artifact_uses (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  hash TEXT NOT NULL REFERENCES artifacts (hash) ON DELETE CASCADE,
  tick INTEGER NOT NULL,
  source TEXT NOT NULL,
  key TEXT,
  PRIMARY KEY (run, hash)
);
CREATE TABLE artifacts (
  hash TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  dtype TEXT NOT NULL,
  shape TEXT NOT NULL,
  rate INTEGER,
  coding TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  file TEXT,
  content BLOB
);
CREATE TABLE calls (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  path TEXT NOT NULL,
  seq INTEGER NOT NULL,
  tick INTEGER NOT NULL,
  arguments TEXT NOT NULL,
  answer TEXT,
  error TEXT,
  child TEXT,
  author TEXT,
  created REAL NOT NULL,
  PRIMARY KEY (run, path)
);
INSERT INTO "calls" VALUES('0027a4a0c9f2','1:doubled',2,0,'{"n":2}','{"value":4}',NULL,NULL,NULL,1.7961394783983418941e+09);
INSERT INTO "calls" VALUES('0027a4a0c9f2','2:named',3,0,'{"n":4}','{"value":"no. 4"}',NULL,NULL,NULL,1.79613947839921069145e+09);
INSERT INTO "calls" VALUES('0027a4a0c9f2','3:doubled',4,0,'{"n":1}','{"value":2}',NULL,NULL,NULL,1.79613947839935636516e+09);
INSERT INTO "calls" VALUES('0027a4a0c9f2','4:named',5,0,'{"n":2}','{"value":"no. 2"}',NULL,NULL,NULL,1.79613947839960479734e+09);
INSERT INTO "calls" VALUES('0027a4a0c9f2','5:doubled',6,0,'{"n":0}','{"value":0}',NULL,NULL,NULL,1.79613947839970088007e+09);
INSERT INTO "calls" VALUES('0027a4a0c9f2','10:named',7,0,'{"n":0}','{"value":"no. 0"}',NULL,NULL,NULL,1.79613947841061210629e+09);
CREATE TABLE checkpoints (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  tick INTEGER NOT NULL,
  position INTEGER NOT NULL,
  file TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  crc INTEGER NOT NULL,
  created REAL NOT NULL, seq INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (run, tick)
);
INSERT INTO "checkpoints" VALUES('0027a4a0c9f2',1,1,'000000000001-18ed2b5729dc4e68.safetensors',304,3555608858,1.79613947975642228131e+09,9);
CREATE TABLE events (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  tick INTEGER NOT NULL,
  name TEXT NOT NULL,
  data TEXT NOT NULL,
  created REAL NOT NULL,
  PRIMARY KEY (run, seq)
);
INSERT INTO "events" VALUES('0027a4a0c9f2',1,0,'start','{}',1.79613947839829301827e+09);
INSERT INTO "events" VALUES('0027a4a0c9f2',10,1,'finish','{"status":"stopped","stopped":{"kind":"ended","sentence":"The item is done.","condition":"ended","numbers":{}}}',1.79613947975661635393e+09);
CREATE TABLE migrations (version INTEGER PRIMARY KEY, applied REAL);
INSERT INTO "migrations" VALUES(1,1.79613947837407469747e+09);
INSERT INTO "migrations" VALUES(2,1.79613947837467813491e+09);
INSERT INTO "migrations" VALUES(3,1.79613947837486171723e+09);
INSERT INTO "migrations" VALUES(4,1.7961394783771719932e+09);
INSERT INTO "migrations" VALUES(5,1.79613947837753748894e+09);
CREATE TABLE notes (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  key TEXT NOT NULL,
  verdict TEXT NOT NULL,
  value TEXT,
  text TEXT NOT NULL,
  author TEXT NOT NULL,
  created REAL NOT NULL,
  PRIMARY KEY (run, seq)
);
CREATE TABLE requests (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  action TEXT NOT NULL,
  data TEXT,
  created REAL NOT NULL,
  done REAL
, path TEXT, answer TEXT, error TEXT);
CREATE TABLE results (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  seq INTEGER NOT NULL,
  tick INTEGER NOT NULL,
  row TEXT NOT NULL,
  created REAL NOT NULL,
  PRIMARY KEY (run, key)
);
INSERT INTO "results" VALUES('0027a4a0c9f2','work',8,1,'{"key":"work","index":0,"output":["no. 4","no. 2","no. 0"],"accepted":true,"stopped":{"kind":"ended","sentence":"The flow returned.","condition":"ended","numbers":{}},"verdicts":[],"rounds":1,"backtracks":0,"length":6,"logprob":0.0,"spent":{"calls":6},"attempts":[{"round":0,"try":0,"position":1,"stopped":{"kind":"ended","sentence":"The flow returned.","condition":"ended","numbers":{}},"answer":{"answer":"accept"},"text":"","verdicts":[],"kept":null}]}',1.79613947975024700162e+09);
CREATE TABLE runs (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  spec TEXT NOT NULL,
  status TEXT NOT NULL,
  tick INTEGER NOT NULL,
  position INTEGER NOT NULL,
  stopped TEXT,
  edits TEXT,
  parent TEXT,
  parent_tick INTEGER,
  created REAL NOT NULL,
  updated REAL NOT NULL
, bytes INTEGER NOT NULL DEFAULT 0, seq INTEGER NOT NULL DEFAULT 0, caller TEXT, caller_path TEXT, brief INTEGER NOT NULL DEFAULT 0);
INSERT INTO "runs" VALUES('0027a4a0c9f2','work','flow','{"config":{"program":"doubles.py","function":"work","arguments":{"count":3},"input":null,"rows":"","items":"","out":null,"model":"smollm2","seed":0,"slots":16,"in_progress":256,"max_tokens":null,"max_cost":null,"max_seconds":null},"known_edits":{"lane":"text"}}','stopped',1,1,'{"kind":"ended","sentence":"The item is done.","condition":"ended","numbers":{}}',NULL,NULL,NULL,1.79613947837902426718e+09,1.79613947975659036639e+09,694,10,NULL,NULL,0);
CREATE TABLE steps (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  data TEXT NOT NULL, seq INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (run, first)
);
CREATE UNIQUE INDEX results_in_order ON results (run, seq);
CREATE INDEX requests_to_do ON requests (run) WHERE done IS NULL;
CREATE UNIQUE INDEX runs_called ON runs (caller, caller_path) WHERE caller IS NOT NULL;
CREATE INDEX runs_branched ON runs (parent) WHERE parent IS NOT NULL;
CREATE INDEX runs_brief ON runs (updated) WHERE brief;
CREATE UNIQUE INDEX calls_in_order ON calls (run, seq);
CREATE INDEX notes_of_results ON notes (run, key);
CREATE INDEX steps_in_log ON steps (run, seq);
CREATE INDEX checkpoints_in_log ON checkpoints (run, seq);
CREATE INDEX artifact_users ON artifact_uses (hash);
COMMIT;
