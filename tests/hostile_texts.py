"""Texts that a terminal, a markup parser or a layout would misread: more than two hundred of them."""

ESC, BEL, ST = "\x1b", "\x07", "\x1b\\"

CONTROLS = [f"a{chr(c)}b" for c in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(c) not in "\n\r\t"]
CSI = (
    "2J H 10;10H 31m ?1049l ?1000h ?2004h ?25l 6n c >c 5n ?6n 18t 21t 8;1;1t 3;r L P @ X K s u !p >1u <u =1;1u ?u"
    " ?2026h ?1004h ?1006h ?47h ?12h ?1003l ?2004l ?7h <999u >25u 97;197H 5;31;44m !|x 0c ?15n 14t 2;1$p 7;7'w"
).split()
OSC = (
    "0;t 1;t 2;t 4;1;? 7;file:/// 10;? 11;? 52;c;YQ== 52;c;? 8;;http://x 9;n 777;notify;a;b 1337;File=:AA== 133;A 104"
    " 12;red 50;f"
).split()
STRINGS = "q#0;2;0;0;0 +q544e $qm tmux;x Ga=T;AA==".split()
SEQUENCES = [
    *(f"{ESC}[{body}" for body in CSI),
    *(f"{ESC}]{body}{end}" for end in (BEL, ST) for body in OSC),
    *(f"{ESC}{opening}{body}{ST}" for opening in "PX^_" for body in STRINGS),
    *(f"{ESC}{letter}" for letter in "c78DEHMNOZ=>\\#()*+-./n|}~"),
    *(f"\x9b{body}" for body in ("2J", "31m", "6n", "?1049h")),
    *(f"{opening}52;c;YQ=={end}" for opening in ("\x9d", f"{ESC}]") for end in ("\x9c", BEL)),
    f"{ESC}",
    f"{ESC}[",
    f"{ESC}]",
    f"{ESC}P",
    f"{ESC}{ESC}[2J",
    f"{ESC}[38;2;1;2;3;4;5;6;7;8;9m",
    f"{ESC}[{'9' * 200}m",
    f"{ESC}]52;c;{'A' * 500}{BEL}",
]
MARKUP = [
    "[red]x[/red]",
    "[bold red on blue blink]x[/]",
    "[@click=screen.do('new')]x[/]",
    "[@click=app.bell,app.quit]x[/]",
    "[link='javascript:alert(1)']x[/link]",
    "[/][/][/]",
    "[/]",
    "[/b]",
    "text [/b]",
    "[@click=app.quit]x[/]",
    "[@click=app.exit()]x[/]",
    "[@click='app.bell']x",
    "[link=http://x]y[/link]",
    "[link='file:///etc/passwd']y",
    "[bold",
    "]]][[[",
    "\\[red]",
    "[$primary]x",
    "[on red]x[/on red]",
    ":smile: :boom:",
    "[[[@click=app.quit]]]",
    "[click](javascript:alert(1))",
    "[x](http://evil.example)",
    "![x](http://evil.example/x.png)",
    "<http://evil.example>",
    "<script>alert(1)</script>",
    "<img src=x onerror=y>",
    "&#27;[2J &#x1b;]0;t&#7; &lt;b&gt;",
    "```\n" + ESC + "[2J\n```",
    "| a | b |\n|---|---|\n| " + ESC + "]0;t" + BEL + " | [/] |",
    "- " + ESC + "[2J\n- [@click=app.quit]x",
    "# " + ESC + "]52;c;YQ==" + BEL,
    "> [/]\n> " + ESC + "c",
    "`[/]` **[red]** *" + ESC + "[31m*",
    "~~[/]~~ $x$ \\(y\\)",
]
BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)
INVISIBLE = (0xE0001, 0xE0041, 0xE007F, 0x200B, 0x200C, 0x200D, 0xFEFF, 0xFFF9, 0xFFFB, 0x2028, 0x2029)
LETTERS = [
    *(f"a{chr(c)}b" for c in (*BIDI, *INVISIBLE)),
    "e" + "\u0301" * 500,
    "\u0301\u0301x",
    "中文字" * 60,
    "한국어 日本語 ไทย हिन्दी",
    "שלום عالم",
    "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪",
    "﷽" * 20,
    "\U0010ffff\uffff\ufffe",
    "x" * 5000,
    ("y" * 300 + " ") * 20,
    "\t" * 200,
    "\n" * 50,
    "a\r\nb\rc",
    "\x00" * 50,
    "\ufffd" * 30,
    "a\ud800b",
    "\udcff.txt",
    "x\udfff",
    f"\ud83d{ESC}[2J",
]
TEXTS = [*CONTROLS, *SEQUENCES, *MARKUP, *LETTERS]
