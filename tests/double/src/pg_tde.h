/* What the server module's files share. */
#ifndef TDE_DOUBLE_H
#define TDE_DOUBLE_H

#include "postgres.h"

#include "access/xlogreader.h"
#include "fmgr.h"
#include "common/relpath.h"
#include "nodes/pg_list.h"
#include "storage/lwlock.h"

#include "format.h"

/* WAL records: names and texts as pg_waldump and the standby's log show them (D3, D4). */
#define TDE_RMGR_ID 140
#define WAL_CREATE_RELATION_KEY 0x00
#define WAL_ADD_PRINCIPAL_KEY 0x10
#define WAL_ROTATE_PRINCIPAL_KEY 0x20
#define WAL_WRITE_KEY_PROVIDER 0x30
#define WAL_INSTALL_EXTENSION 0x40
#define WAL_DELETE_PRINCIPAL_KEY 0x60

typedef struct WalRelation
{
	Oid			tablespace;
	Oid			database;
	Oid			relation;
	RelFileNumber file;
} WalRelation;

typedef struct WalRotate
{
	Oid			database;
	int32		provider;
	char		name[MAX_NAME];
} WalRotate;

typedef struct WalProvider
{
	Oid			database;
	uint32		position;
	ProviderRecord record;
} WalProvider;

typedef struct KeyBytes
{
	uint32		length;
	uint8		bytes[MAX_KEY_BYTES];
} KeyBytes;

typedef struct PrincipalKey
{
	KeyFile		info;
	KeyBytes	key;
} PrincipalKey;

/* A provider with its token, read anew for each use (C10). */
typedef struct Keyring
{
	ProviderRecord record;
	char		token[1024];
} Keyring;

/* A function of the extension that is no more than a call of another. */
#define SQL_FUNCTION(name, call) \
	PG_FUNCTION_INFO_V1(name); \
	Datum \
	name(PG_FUNCTION_ARGS) \
	{ \
		return call; \
	}

/* settings and locks (pg_tde.c) */
extern bool setting_inherit_global_providers;
extern bool setting_enforce_encryption;
extern int	setting_key_bytes;
extern LWLock *keys_lock(void);
extern LWLock *providers_lock(void);
extern PrincipalKey *key_cache(void);

#define KEY_CACHE_SLOTS 128

/* providers.c */
extern Keyring *keyring_by_name(const char *name, Oid database);
extern Keyring *keyring_by_id(int id, Oid database);
extern void delete_providers_file(Oid database);
extern void write_provider(const WalProvider *change, bool log);

/* keyring.c */
extern void keyring_open(Keyring *keyring);
extern void keyring_validate(Keyring *keyring);
extern bool keyring_get(Keyring *keyring, const char *name, KeyBytes *key, const char **failure);
extern void keyring_store(Keyring *keyring, const char *name, const KeyBytes *key);

/* keystore.c; the first block needs keys_lock() */
extern uint64 check_of(const KeyBytes *key);
extern PrincipalKey *cached_key(Oid database);
extern PrincipalKey *fetch_key(Oid database);
extern PrincipalKey *own_key(Oid database);
extern bool same_key(const PrincipalKey *one, const PrincipalKey *other);
extern void put_key(const PrincipalKey *key, bool rotation, bool log);
extern void copy_key(const PrincipalKey *from, Oid database);
extern void remove_key(Oid database);

extern List *all_databases(void);
extern void start_server_key(bool wal_encrypt);
extern void require_database_key(void);
extern void use_database_key(const WalRelation *relation, bool log);
extern bool has_file_key(Oid database, Oid relation, RelFileNumber file);
extern bool provider_in_use(Oid database, int id);
extern void verify_keys_in_use(Keyring *changed);
extern void forget_database_key(Oid database);
extern void redo_add_key(const KeyFile *file);
extern void redo_rotate_key(const WalRotate *rotate);
extern void redo_delete_key(Oid database);

/* tableam.c */
extern void install_table_hooks(void);
extern bool database_has_encrypted_tables(void);

/* wal.c */
extern void log_record(uint8 info, const void *data, uint32 length);
extern void register_resource_manager(void);

#endif
