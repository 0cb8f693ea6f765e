/*
 * Files below $PGDATA/pg_tde: named as pg_tde names them (E1), contents of the double's own.
 * Shared by the server module and the two command-line tools, so nothing of PostgreSQL's in here.
 */
#ifndef TDE_DOUBLE_FORMAT_H
#define TDE_DOUBLE_FORMAT_H

#include <stdint.h>
#include <string.h>

#define TDE_DIR "pg_tde"
#define SERVER_KEY 1664			/* its key is in wal_keys, its providers are the global ones */
#define DEFAULT_KEY 1663
#define MAX_KEY_BYTES 32
#define MAX_NAME 256

enum ProviderType
{
	PROVIDER_DELETED,			/* the record stays: ids are never used again (A1) */
	PROVIDER_FILE,
	PROVIDER_VAULT
};

enum ProviderField
{
	FIELD_URL,
	FIELD_MOUNT,
	FIELD_TOKEN_PATH,
	FIELD_CA_PATH,
	FIELD_NAMESPACE,
	FIELD_FILE_PATH,
	FIELD_COUNT
};

/* <dboid>_providers: an array of these. */
typedef struct ProviderRecord
{
	int32_t		id;
	int32_t		type;
	char		name[128];
	char		options[1024];	/* the JSON, to be shown */
	char		fields[1024 + FIELD_COUNT]; /* the same parsed: FIELD_COUNT strings, end to end */
} ProviderRecord;

/* <dboid>_keys and wal_keys: one of these, then a FileKey for each of its entries. */
typedef struct KeyFile
{
	uint32_t	database;
	int32_t		provider;
	int64_t		set_at;			/* TimestampTz, by this node's clock (A3) */
	uint32_t	key_bytes;
	uint32_t	entries;		/* file keys encrypted with it */
	uint64_t	check;			/* hash of the key: no key material on disk (E1), but a swapped key shows (B9) */
	char		name[MAX_NAME];
} KeyFile;

enum Cipher
{
	CIPHER_AES_128,
	CIPHER_AES_256
};

/* The key of one relation file, or of the WAL from one start on. It is never re-encrypted to another cipher. */
typedef struct FileKey
{
	uint32_t	cipher;
	uint32_t	relation;		/* 0: WAL */
	uint32_t	file;			/* relfilenumber, at the time it was made */
} FileKey;

static inline uint32_t
cipher_of(uint32_t key_bytes)
{
	return key_bytes == MAX_KEY_BYTES ? CIPHER_AES_256 : CIPHER_AES_128;
}

static inline const char *
provider_field(const ProviderRecord *provider, enum ProviderField field)
{
	const char *text = provider->fields;

	for (int i = 0; i < (int) field; i++)
		text += strlen(text) + 1;
	return text;
}

#endif
