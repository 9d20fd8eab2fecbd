// Reads an archive from its standard input as it arrives, without the directory at its end, and prints
// each file's name and the SHA-256 of its bytes.

import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.zip.ZipInputStream;

class ReadAsItArrives {
    public static void main(String[] arguments) throws Exception {
        var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        try (ZipInputStream archive = new ZipInputStream(System.in)) {
            for (var entry = archive.getNextEntry(); entry != null; entry = archive.getNextEntry()) {
                byte[] digest = MessageDigest.getInstance("SHA-256").digest(archive.readAllBytes());
                out.println(HexFormat.of().formatHex(digest) + " " + entry.getName());
            }
        }
    }
}
