\echo Use "CREATE EXTENSION pg_tde" to load this file. \quit

-- As in pg_tde's own script, nothing is called here that the owner of the schema could overload.

-- Providers, of a database and of the whole server ("global"). add_* and change_* take the same arguments.
DO $outer$
DECLARE
    verb text;
    scope text;
    base text;
BEGIN
    FOREACH scope IN ARRAY ARRAY['database', 'global'] LOOP
        FOREACH verb IN ARRAY ARRAY['add', 'change'] LOOP
            base := pg_catalog.format('pg_tde_%s_%s_key_provider', verb, scope);
            EXECUTE pg_catalog.format($$CREATE FUNCTION %I(type text, name text, options json) RETURNS void
                LANGUAGE C AS 'MODULE_PATHNAME'$$, base);
            EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %I(text, text, json) FROM PUBLIC', base);
            EXECUTE pg_catalog.format($$CREATE FUNCTION %I(provider_name text, file_path text) RETURNS void LANGUAGE sql BEGIN ATOMIC
                SELECT %I('file', provider_name, json_object('path' VALUE file_path)); END$$, base || '_file', base);
            EXECUTE pg_catalog.format($$CREATE FUNCTION %I(provider_name text, vault_url text, vault_mount_path text,
                    vault_token_path text, vault_ca_path text) RETURNS void LANGUAGE sql BEGIN ATOMIC
                SELECT %I('vault-v2', provider_name, json_object('url' VALUE vault_url, 'mountPath' VALUE vault_mount_path,
                    'tokenPath' VALUE vault_token_path, 'caPath' VALUE vault_ca_path)); END$$, base || '_vault_v2', base);
            EXECUTE pg_catalog.format($$CREATE FUNCTION %I(provider_name text, vault_url text, vault_mount_path text,
                    vault_token_path text, vault_ca_path text, vault_namespace text) RETURNS void LANGUAGE sql BEGIN ATOMIC
                SELECT %I('vault-v2', provider_name, json_object('url' VALUE vault_url, 'mountPath' VALUE vault_mount_path,
                    'tokenPath' VALUE vault_token_path, 'caPath' VALUE vault_ca_path,
                    'namespace' VALUE vault_namespace)); END$$, base || '_vault_v2', base);
        END LOOP;
    END LOOP;
END
$outer$;

CREATE FUNCTION pg_tde_list_all_database_key_providers(OUT id int, OUT name text, OUT type text, OUT options json)
    RETURNS SETOF record LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_list_all_global_key_providers(OUT id int, OUT name text, OUT type text, OUT options json)
    RETURNS SETOF record LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_delete_database_key_provider(provider_name text) RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_delete_global_key_provider(provider_name text) RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';

CREATE FUNCTION pg_tde_create_key_using_database_key_provider(key_name text, provider_name text)
    RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_create_key_using_global_key_provider(key_name text, provider_name text)
    RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_set_key_using_database_key_provider(key_name text, provider_name text)
    RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_set_key_using_global_key_provider(key_name text, provider_name text)
    RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_set_server_key_using_global_key_provider(key_name text, provider_name text)
    RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_set_default_key_using_global_key_provider(key_name text, provider_name text)
    RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';

CREATE FUNCTION pg_tde_key_info()
    RETURNS TABLE (key_name text, provider_name text, provider_id int, key_creation_time timestamptz)
    LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_server_key_info()
    RETURNS TABLE (key_name text, provider_name text, provider_id int, key_creation_time timestamptz)
    LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_default_key_info()
    RETURNS TABLE (key_name text, provider_name text, provider_id int, key_creation_time timestamptz)
    LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_verify_key() RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_verify_server_key() RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_verify_default_key() RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_delete_key() RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_delete_default_key() RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';

-- For everybody: the two below. All others may be granted (A6).
DO $$
DECLARE
    member regprocedure;
BEGIN
    FOR member IN SELECT oid FROM pg_proc WHERE pg_catalog.starts_with(proname::text, 'pg_tde_') AND prolang = (SELECT oid FROM pg_language WHERE lanname = 'c')
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', member);
    END LOOP;
END
$$;

CREATE FUNCTION pg_tde_is_encrypted(relation regclass) RETURNS boolean STRICT LANGUAGE C AS 'MODULE_PATHNAME';
CREATE FUNCTION pg_tde_version() RETURNS text LANGUAGE C AS 'MODULE_PATHNAME';

CREATE FUNCTION pg_tde_ddl_command_start_capture() RETURNS event_trigger LANGUAGE C AS 'MODULE_PATHNAME';
REVOKE ALL ON FUNCTION pg_tde_ddl_command_start_capture() FROM PUBLIC;
CREATE FUNCTION pg_tde_ddl_command_end_capture() RETURNS event_trigger LANGUAGE C AS 'MODULE_PATHNAME';
REVOKE ALL ON FUNCTION pg_tde_ddl_command_end_capture() FROM PUBLIC;
CREATE EVENT TRIGGER pg_tde_ddl_start ON ddl_command_start EXECUTE FUNCTION pg_tde_ddl_command_start_capture();
ALTER EVENT TRIGGER pg_tde_ddl_start ENABLE ALWAYS;
CREATE EVENT TRIGGER pg_tde_ddl_end ON ddl_command_end EXECUTE FUNCTION pg_tde_ddl_command_end_capture();
ALTER EVENT TRIGGER pg_tde_ddl_end ENABLE ALWAYS;

CREATE FUNCTION pg_tdeam_handler(internal) RETURNS table_am_handler LANGUAGE C AS 'MODULE_PATHNAME';
REVOKE ALL ON FUNCTION pg_tdeam_handler(internal) FROM PUBLIC;
CREATE ACCESS METHOD tde_heap TYPE TABLE HANDLER pg_tdeam_handler;
COMMENT ON ACCESS METHOD tde_heap IS 'tde_heap table access method';

CREATE FUNCTION pg_tde_extension_initialize() RETURNS void LANGUAGE C AS 'MODULE_PATHNAME';
SELECT pg_tde_extension_initialize();
DROP FUNCTION pg_tde_extension_initialize();
