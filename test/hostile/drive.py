"""Runs deploy/break-glass/read.py for each line of stdin, which has its arguments in JSON, and says in a line what came of it."""
import contextlib, io, json, sys, traceback

sys.path.insert(0, sys.argv[1])
import read

for line in sys.stdin:
    sys.argv, said, code = ["read.py", *json.loads(line)], io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(said):
            read.main()
    except SystemExit as e:  # as the interpreter does it
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
        said.write("" if isinstance(e.code, int) else str(e.code))
    except BaseException:
        code = -1
        said.write(traceback.format_exc())
    print(json.dumps({"code": code, "said": said.getvalue()}), flush=True)
