# What the KMS needs of Vault, with its engine at transit/ and the prefix chatelaine-.
# Its token also needs the policy "default", which tokens have unless that is forbidden.
path "transit/keys/chatelaine-*" {
  # create and update make keys, update and delete destroy them. A KMS that shall do
  # neither needs read alone.
  capabilities = ["create", "read", "update", "delete"]
}
path "transit/encrypt/chatelaine-*" { capabilities = ["update"] }
path "transit/decrypt/chatelaine-*" { capabilities = ["update"] }
path "transit/random/*"             { capabilities = ["update"] }
