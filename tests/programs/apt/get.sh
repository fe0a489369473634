# Gets the package lists and the package from the archive at the address given, by an apt whose files are all its own,
# in the working folder; prints the sum of what is in the package.
set -eu
mkdir -p etc/preferences.d etc/trusted.gpg.d state/lists/partial cache/archives/partial
touch status
chmod a+rx .
# Started by root, apt downloads as this user.
if [ "$(id -u)" = 0 ]; then chown -R _apt state/lists cache; fi
echo "deb [trusted=yes arch=all] http://$1 test main" >etc/sources.list
cat >apt.conf <<END
APT::Architecture "amd64";
Acquire::Languages "none";
Acquire::Retries "0";
Acquire::http::Proxy "DIRECT";
Dir::Cache "$PWD/cache";
Dir::Etc "$PWD/etc";
Dir::Etc::sourceparts "/dev/null";
Dir::State "$PWD/state";
Dir::State::status "$PWD/status";
// Hooks of the machine tidy its own folders.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
END
export APT_CONFIG="$PWD/apt.conf"
apt-get update --error-on=any >&2
[ "$(apt-cache show filler-19999 | grep -c '^Description: 19999$')" = 1 ]
cd cache
apt-get download netshunt-greeting >&2
dpkg-deb --fsys-tarfile netshunt-greeting_1.0_all.deb | tar -xO ./usr/share/netshunt-greeting/greeting | sha256sum
