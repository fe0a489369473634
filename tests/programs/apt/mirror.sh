# Makes an archive of one package in the working folder, with a list that is long enough to take a while.
set -eu
content=package/usr/share/netshunt-greeting
lists=dists/test/main/binary-all
mkdir -p pool $lists package/DEBIAN $content
head -c 3000000 /dev/urandom >$content/greeting
cat >package/DEBIAN/control <<'END'
Package: netshunt-greeting
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@netshunt.test>
Description: a greeting
END
dpkg-deb --root-owner-group --build package pool/netshunt-greeting_1.0_all.deb
{
    apt-ftparchive packages pool
    i=0
    while [ $i -lt 20000 ]; do
        printf 'Package: filler-%d\nVersion: 1\nArchitecture: all\nFilename: pool/none\nSize: 1\nSHA256: %064d\n' $i $i
        printf 'Description: %s\n\n' $i
        i=$((i + 1))
    done
} >$lists/Packages
release=APT::FTPArchive::Release
apt-ftparchive -o $release::Suite=test -o $release::Components=main -o $release::Architectures=all \
    release dists/test >Release
mv Release dists/test/Release
sha256sum <$content/greeting >greeting.sum
chmod -R a+rX .
