# SPDX-License-Identifier: Apache-2.0
# cmake -DFILES=a,b -DFROM=DIRECTORY -DTO=FILE.c -P embed.cmake
# Writes the C source that page_assets.h declares.
set(type_html "text/html; charset=utf-8")
set(type_css "text/css; charset=utf-8")
set(type_js "text/javascript; charset=utf-8")
set(type_svg "image/svg+xml")

string(REPLACE "," ";" FILES "${FILES}")
set(arrays "")
set(rows "")
set(count 0)
foreach(name ${FILES})
    file(READ "${FROM}/${name}" bytes HEX)
    file(SHA256 "${FROM}/${name}" digest)
    string(SUBSTRING ${digest} 0 20 etag)
    string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
    # 20 bytes a line
    string(REPEAT "[^,]*," 20 line)
    string(REGEX REPLACE "(${line})" "\\1\n" bytes "${bytes}")
    string(REGEX REPLACE ".*\\." "" suffix ${name})
    set(path /page/${name})
    if(name STREQUAL "index.html")
        set(path /)
    endif()
    string(APPEND arrays "static const unsigned char file_${count}[] = {\n${bytes}};\n\n")
    string(APPEND rows "    {\"${path}\", \"${type_${suffix}}\", \"\\\"${etag}\\\"\", "
        "file_${count}, sizeof file_${count}},\n")
    math(EXPR count "${count} + 1")
endforeach()
file(WRITE "${TO}" "/* Written by embed.cmake. */\n#include \"page_assets.h\"\n\n${arrays}"
    "const page_asset page_assets[] = {\n${rows}};\n\nconst size_t page_num_assets = ${count};\n")
