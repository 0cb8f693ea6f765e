/* Key providers at work: requests to the Vault (C1), or a plain file. */
#include "pg_tde.h"

#include <fcntl.h>

#include "catalog/pg_type_d.h"
#include "common/base64.h"
#include "fmgr.h"
#include "nodes/miscnodes.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "http.h"

#if PG_VERSION_NUM >= 180000
#define BASE64_BYTES(bytes) (bytes)
#else
#define BASE64_BYTES(bytes) ((char *) (bytes))
#endif

#define BASE64_LENGTH 64
#define INVALID_KEY "Invalid key"
#define INVALID_RESPONSE "Invalid response from keyring provider"

/* First line, cut at the first blank; so a leading blank gives an empty token, and a 403 (C10). */
static void
read_token(Keyring *keyring)
{
	const char *path = provider_field(&keyring->record, FIELD_TOKEN_PATH);
	FILE	   *file = AllocateFile(path, "r");

	if (!file)
		ereport(ERROR, errcode_for_file_access(), errmsg("could not open file \"%s\" for \"%s\": %m", path, "vault_token"));
	if (!fgets(keyring->token, sizeof(keyring->token), file))
	{
		if (ferror(file))
			ereport(ERROR, errcode_for_file_access(),
					errmsg("could not read file \"%s\" for \"%s\": %m", path, "vault_token"));
		keyring->token[0] = '\0';
	}
	keyring->token[strcspn(keyring->token, " \t\r\n")] = '\0';
	FreeFile(file);
}

/* Even listing a provider reads its token, and fails without (A5). */
void
keyring_open(Keyring *keyring)
{
	if (keyring->record.type == PROVIDER_VAULT)
		read_token(keyring);
}

/* False if there was no answer. Otherwise *status is set, and *body is palloc'ed. */
static bool
vault_request(Keyring *keyring, const char *path, const char *post, long *status, char **body)
{
	char	   *url = psprintf("%s/v1/%s", provider_field(&keyring->record, FIELD_URL), path);
	HttpRequest request = {
		.url = url,
		.token = keyring->token,
		.ca_path = provider_field(&keyring->record, FIELD_CA_PATH),
		.vault_namespace = provider_field(&keyring->record, FIELD_NAMESPACE),
		.post = post,
	};
	HttpReply	reply;
	int			failure = http_perform(&request, &reply);

	if (failure == HTTP_NO_LIBCURL)
		elog(ERROR, "the contract double of pg_tde needs libcurl.so.4");
	if (failure)
	{
		elog(LOG, "curl_easy_perform failed with return code: %d", failure);
		return false;
	}
	*status = reply.status;
	*body = pstrdup(reply.body);
	free(reply.body);
	return true;
}

static Jsonb *
parse_json(char *text)
{
	ErrorSaveContext errors = {.type = T_ErrorSaveContext};
	Datum		value;

	if (!DirectInputFunctionCallSafe(jsonb_in, text, JSONBOID, -1, (Node *) &errors, &value))
		return NULL;
	return DatumGetJsonbP(value);
}

/* The string at a path of object keys, ended by NULL; NULL if it isn't there. */
static char *
json_string(Jsonb *json, const char *const *path)
{
	JsonbContainer *container = &json->root;
	JsonbValue	value;

	for (;; path++)
	{
		if (!JsonContainerIsObject(container) || !getKeyJsonValueFromContainer(container, *path, strlen(*path), &value))
			return NULL;
		if (!path[1])
			return value.type == jbvString ? pnstrdup(value.val.string.val, value.val.string.len) : NULL;
		if (value.type != jbvBinary)
			return NULL;
		container = value.val.binary.data;
	}
}

static void
no_answer(int level, Keyring *keyring)
{
	ereport(level, errmsg("HTTP(S) request to keyring provider \"%s\" failed", keyring->record.name));
}

static void
validate_mount(Keyring *keyring)
{
	static const char *const type_path[] = {"data", "type", NULL};
	static const char *const version_path[] = {"data", "options", "version", NULL};
	const char *url = provider_field(&keyring->record, FIELD_URL);
	const char *mount = provider_field(&keyring->record, FIELD_MOUNT);
	const char *type;
	const char *version;
	Jsonb	   *json;
	long		status;
	char	   *body;

	if (!vault_request(keyring, psprintf("sys/mounts/%s", mount), NULL, &status, &body))
		no_answer(ERROR, keyring);
	if (status != 200)
	{
		/* Only a warning, although nothing may work afterwards (C3, C4). */
		ereport(WARNING, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("failed to get mount info for \"%s\" at mountpoint \"%s\" (HTTP %ld)", url, mount, status));
		return;
	}
	json = parse_json(body);
	type = json ? json_string(json, type_path) : NULL;
	version = json ? json_string(json, version_path) : NULL;
	if (!type)
		ereport(WARNING, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("failed to parse mount info for \"%s\" at mountpoint \"%s\": missing type field", url, mount));
	else if (strcmp(type, "kv") != 0)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("vault mount at \"%s\" has unsupported engine type \"%s\"", mount, type),
				errhint("The only supported vault engine type is Key/Value version \"2\""));
	else if (!version)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("failed to parse mount info for \"%s\" at mountpoint \"%s\": missing version field", url, mount));
	else if (strcmp(version, "2") != 0)
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("vault mount at \"%s\" has unsupported Key/Value engine version \"%s\"", mount, version),
				errhint("The only supported vault engine type is Key/Value version \"2\""));
}

/* What add and change do before anything is written (C1, D1). */
void
keyring_validate(Keyring *keyring)
{
	const char *mount = provider_field(&keyring->record, FIELD_MOUNT);
	long		status;
	char	   *body;

	if (keyring->record.type == PROVIDER_FILE)
	{
		const char *path = provider_field(&keyring->record, FIELD_FILE_PATH);
		int			file = OpenTransientFile(path, O_CREAT | O_RDWR);

		if (file < 0)
			ereport(ERROR, errcode_for_file_access(), errmsg("Failed to open keyring file %s: %m", path));
		CloseTransientFile(file);
		return;
	}
	validate_mount(keyring);
	if (!vault_request(keyring, psprintf("%s/metadata/?list=true", mount), NULL, &status, &body))
		no_answer(ERROR, keyring);
	if (status != 200 && status != 404) /* 404: no secret yet */
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("Listing secrets of \"%s\" at mountpoint \"%s\" failed",
					   provider_field(&keyring->record, FIELD_URL), mount));
}

/* Sets *text to the key as stored, NULL if there is none. Returns what to say after a failed read, or NULL. */
static const char *
vault_read(Keyring *keyring, const char *name, char **text)
{
	static const char *const key_path[] = {"data", "data", "key", NULL};
	const char *provider = keyring->record.name;
	Jsonb	   *json;
	long		status;
	char	   *body;

	if (!vault_request(keyring, psprintf("%s/data/%s", provider_field(&keyring->record, FIELD_MOUNT), name),
					   NULL, &status, &body))
	{
		no_answer(WARNING, keyring);
		return INVALID_KEY;
	}
	if (status == 404)
		return NULL;
	if (status / 100 != 2)
	{
		ereport(WARNING,
				errmsg("HTTP(S) request to keyring provider \"%s\" returned invalid response %ld", provider, status));
		return INVALID_RESPONSE;
	}
	if (!(json = parse_json(body)))
	{
		ereport(WARNING, errmsg("HTTP(S) request to keyring provider \"%s\" returned incorrect JSON", provider));
		return INVALID_RESPONSE;
	}
	if (!(*text = json_string(json, key_path)))
	{
		ereport(WARNING, errmsg("HTTP(S) request to keyring provider \"%s\" returned no key", provider));
		return INVALID_RESPONSE;
	}
	return NULL;
}

/* Lines of "name base64". */
static void
file_read(Keyring *keyring, const char *name, char **text)
{
	FILE	   *file = AllocateFile(provider_field(&keyring->record, FIELD_FILE_PATH), "r");
	char		line[MAX_NAME + BASE64_LENGTH + 2];
	char	   *separator;

	while (file && fgets(line, sizeof(line), file))
	{
		line[strcspn(line, "\n")] = '\0';
		separator = strrchr(line, ' ');
		if (separator && strlen(name) == (size_t) (separator - line) && strncmp(line, name, separator - line) == 0)
			*text = pstrdup(separator + 1);
	}
	if (file)
		FreeFile(file);
}

/*
 * Whether the provider has such a key. After a failed read it says no as well, with *failure set: create_key looks only at the
 * result, which is the overwrite hazard of C7.
 */
bool
keyring_get(Keyring *keyring, const char *name, KeyBytes *key, const char **failure)
{
	char	   *text = NULL;
	int			length;

	*failure = NULL;
	if (keyring->record.type == PROVIDER_FILE)
		file_read(keyring, name, &text);
	else
		*failure = vault_read(keyring, name, &text);
	if (!text)
		return false;

	length = pg_b64_decode(text, strlen(text), BASE64_BYTES(key->bytes), MAX_KEY_BYTES);
	if (length != 16 && length != MAX_KEY_BYTES)
	{
		ereport(WARNING, errmsg("invalid key: unsupported key length \"%d\"", length));
		*failure = INVALID_KEY;
		return false;
	}
	if (length != setting_key_bytes)	/* said at each request, and no hindrance */
		ereport(WARNING,
				errmsg("length \"%d\" of key \"%s\" does not match the length \"%d\" of the current cipher setting",
					   length, name, setting_key_bytes),
				errhint("Create a new principal key and set it instead of the current one."));
	key->length = length;
	return true;
}

void
keyring_store(Keyring *keyring, const char *name, const KeyBytes *key)
{
	char		text[BASE64_LENGTH + 1];
	int			length = pg_b64_encode(BASE64_BYTES(key->bytes), key->length, text, BASE64_LENGTH);
	long		status;
	char	   *body;

	text[length] = '\0';
	if (keyring->record.type == PROVIDER_FILE)
	{
		FILE	   *file = AllocateFile(provider_field(&keyring->record, FIELD_FILE_PATH), "a");

		if (!file || fprintf(file, "%s %s\n", name, text) < 0 || FreeFile(file) != 0)
			ereport(ERROR, errcode_for_file_access(), errmsg("could not write keyring file: %m"));
		return;
	}
	if (!vault_request(keyring, psprintf("%s/data/%s", provider_field(&keyring->record, FIELD_MOUNT), name),
					   psprintf("{\"data\":{\"key\":\"%s\"}}", text), &status, &body))
		no_answer(ERROR, keyring);
	if (status / 100 != 2)
		ereport(ERROR,
				errmsg("Invalid HTTP response from keyring provider \"%s\": %ld", keyring->record.name, status));
}
