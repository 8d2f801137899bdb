"""The words that :class:`perceive.language.words.WordTable` knows from the start: those of instructions to robots.

The order is part of a saved table; a checkpoint carries the list that it was trained with, so this one may grow.
"""

from __future__ import annotations

_GROUPS = {
    "colours and looks": """
        red green blue yellow orange purple violet pink brown black white gray grey cyan magenta teal navy maroon lime
        olive silver gold azure rose turquoise light dark bright striped transparent
    """,
    "sizes and other properties": """
        small large big tiny huge little long short tall wide narrow thin thick heavy round flat empty full open closed
        same other different new
    """,
    "shapes and things on a table": """
        block blocks box boxes cube cubes cuboid ball balls sphere cylinder cylinders disc disk puck ring rings peg pegs
        hole rod stick bar plate plates bowl bowls cup cups mug mugs jar jars lid bottle can pot pan tray basket bin
        crate container object objects item items thing toy tool spoon fork knife block tower stack pile row line button
        buttons switch lever knob handle drawer drawers door doors cabinet cupboard shelf rack holder hook hanger slot
        socket plug key lock drain tap valve sponge cloth towel book paper pen marker card letter star triangle square
        circle rectangle hexagon moon cross bulb lamp base stand safe rope wire cable screw nut bolt hammer screwdriver
        banana apple orange lemon pear meat chicken steak soup sugar mustard
    """,
    "the scene and the robot": """
        table floor wall zone area target goal place spot location position corner edge middle center centre side front
        back top bottom end rim surface robot arm hand gripper finger fingers
    """,
    "verbs": """
        pick put place lift raise lower grasp grab hold take give bring carry move push pull press slide drag sweep turn
        rotate twist screw unscrew insert plug unplug hang stack unstack sort open close shut pour wipe touch reach
        point tap hit flip tilt shake drop release leave let go keep stop wait find get set stand lay align fit fill
        remove return swap use
    """,
    "prepositions and directions": """
        on onto upon in into inside out outside of off to from at by with without under underneath below beneath over
        above behind before after between among beside besides next near nearest nearby far farthest against across
        along around through toward towards away up upward upwards down downward downwards left right leftmost rightmost
        forward forwards backward backwards clockwise counterclockwise anticlockwise north south east west
    """,
    "small words": """
        the a an this that these those it its them they one ones which who what where when while until then and or but
        not no any all both each every some only again also too as than more less most least very is are be has have do
        please now there here
    """,
    "numbers and ordinals": """
        zero two three four five six seven eight nine ten eleven twelve 0 1 2 3 4 5 6 7 8 9 10 11 12 first second third
        fourth fifth sixth seventh eighth ninth tenth last previous half quarter once twice times degrees cm mm
    """,
}

VOCABULARY: tuple[str, ...] = tuple(dict.fromkeys(word for group in _GROUPS.values() for word in group.split()))
