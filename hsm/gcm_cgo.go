//go:build cgo

package hsm

/*
#cgo linux LDFLAGS: -ldl
#cgo noescape chatelaine_gcm
#cgo nocallback chatelaine_gcm
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>

// The few declarations of PKCS#11 v2.40 that C_Encrypt and C_Decrypt need. The
// function list is a CK_VERSION followed by pointers in the order of the
// standard's section 5; on Unix nothing is packed.
typedef unsigned long ulong_t;
typedef struct {
	unsigned char *iv; ulong_t iv_len, iv_bits;
	unsigned char *aad; ulong_t aad_len;
	ulong_t tag_bits;
} gcm_params_t;
typedef struct { ulong_t kind; void *param; ulong_t param_len; } mechanism_t;
typedef ulong_t (*init_t)(ulong_t session, mechanism_t *mechanism, ulong_t key);
typedef ulong_t (*crypt_t)(ulong_t session, unsigned char *in, ulong_t in_len,
	unsigned char *out, ulong_t *out_len);
typedef struct { unsigned char major, minor; void *fn[68]; } function_list_t;
typedef ulong_t (*get_list_t)(function_list_t **list);

enum { FN_ENCRYPT_INIT = 29, FN_DECRYPT_INIT = 33, CKM_AES_GCM_ = 0x1087 };

// chatelaine_load maps a module and finds its function list. NODELETE, because
// vendor libraries leave threads and exit handlers behind that must not dangle.
static function_list_t *chatelaine_load(const char *path, const char **why, ulong_t *code) {
	*why = NULL;
	*code = 0;
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!lib) { *why = dlerror(); return NULL; }
	get_list_t get = (get_list_t)dlsym(lib, "C_GetFunctionList");
	if (!get) { *why = "it has no C_GetFunctionList: it is not a PKCS#11 module"; return NULL; }
	function_list_t *list = NULL;
	*code = get(&list);
	return *code ? NULL : list;
}

// chatelaine_gcm makes the Init call and the single-part call at index fn and
// fn+1 of the list. *stage is 0 when the first of them failed.
static ulong_t chatelaine_gcm(function_list_t *list, int fn, ulong_t session, ulong_t key,
	unsigned char *iv, ulong_t iv_len, unsigned char *aad, ulong_t aad_len,
	unsigned char *in, ulong_t in_len, unsigned char *out, ulong_t *out_len, int *stage) {
	gcm_params_t params = { iv, iv_len, iv_len * 8, aad, aad_len, 128 };
	mechanism_t mechanism = { CKM_AES_GCM_, &params, sizeof params };
	*stage = 0;
	ulong_t rv = ((init_t)list->fn[fn])(session, &mechanism, key);
	if (rv) return rv;
	*stage = 1;
	return ((crypt_t)list->fn[fn + 1])(session, in, in_len, out, out_len);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// functionList is the module's own table of functions, valid while it is mapped.
type functionList struct{ list *C.function_list_t }

// loadFunctions maps the module at path. It stays mapped until the process ends.
func loadFunctions(path string) (functionList, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var why *C.char
	var code C.ulong_t
	list := C.chatelaine_load(name, &why, &code)
	switch {
	case why != nil:
		return functionList{}, errors.New(C.GoString(why))
	case code != 0 || list == nil:
		return functionList{}, fmt.Errorf("C_GetFunctionList: %s", codeName(uint(code)))
	}
	return functionList{list}, nil
}

func (f functionList) encrypt(s sessionHandle, key objectHandle, call gcmCall, in []byte) ([]byte, error) {
	return f.gcm(C.FN_ENCRYPT_INIT, [2]string{"C_EncryptInit", "C_Encrypt"}, s, key, call, in)
}

func (f functionList) decrypt(s sessionHandle, key objectHandle, call gcmCall, in []byte) ([]byte, error) {
	return f.gcm(C.FN_DECRYPT_INIT, [2]string{"C_DecryptInit", "C_Decrypt"}, s, key, call, in)
}

func (f functionList) gcm(fn C.int, names [2]string, s sessionHandle, key objectHandle, call gcmCall, in []byte) ([]byte, error) {
	out := make([]byte, len(in)+gcmRoom)
	size := C.ulong_t(len(out))
	var stage C.int
	rv := C.chatelaine_gcm(f.list, fn, C.ulong_t(s), C.ulong_t(key),
		bytePtr(call.iv), C.ulong_t(len(call.iv)), bytePtr(call.aad), C.ulong_t(len(call.aad)),
		bytePtr(in), C.ulong_t(len(in)), bytePtr(out), &size, &stage)
	if rv != 0 {
		clear(out)
		return nil, &CallError{Call: names[stage], Code: uint(rv)}
	}
	if size > C.ulong_t(len(out)) {
		return nil, &CallError{Call: names[stage], Code: ckrBufferTooSmall}
	}
	return out[:size], nil
}

// bytePtr is the first byte's address, or NULL for none.
func bytePtr(b []byte) *C.uchar { return (*C.uchar)(unsafe.SliceData(b)) }
