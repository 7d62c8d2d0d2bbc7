import com.sun.net.httpserver.HttpServer;
import java.net.*;
import java.net.http.*;
import java.nio.channels.FileChannel;
import java.nio.file.*;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;

/** Files, mappings, processes, threads and a server, from a jar. */
public class Main {
    public static void main(String[] words) throws Exception {
        System.out.println(Arrays.toString(words) + System.getProperty("java.version") + System.getProperty("user.dir"));
        try (var paths = Files.walk(Path.of("/data"))) {
            for (var path : (Iterable<Path>) paths.sorted()::iterator) {
                System.out.println(path + " " + (Files.isRegularFile(path) ? Files.size(path) : -1) + Files.getPosixFilePermissions(path, LinkOption.NOFOLLOW_LINKS));
            }
        }
        try (var channel = FileChannel.open(Path.of("/data/big"))) {
            var digest = MessageDigest.getInstance("SHA-256");
            digest.update(channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size()));
            System.out.println(HexFormat.of().formatHex(digest.digest()));
        }
        var pool = Executors.newFixedThreadPool(16);
        var all = new ArrayList<Future<Integer>>();
        for (int i = 0; i < 200; i++) all.add(pool.submit(() -> Files.readAllBytes(Path.of("/data/small")).length));
        int total = 0;
        for (var one : all) total += one.get();
        System.out.println(total);
        var child = new ProcessBuilder("/bin/sh", "-c", "echo from the child; exit 3").start();
        System.out.print(new String(child.getInputStream().readAllBytes()));
        System.out.println(child.waitFor());
        try { Files.writeString(Path.of("/data/new"), "x"); } catch (java.io.IOException error) { System.out.println(error); }
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", 8080), 0);
        server.createContext("/", exchange -> { var body = Files.readAllBytes(Path.of("/data/big")); exchange.sendResponseHeaders(200, body.length); exchange.getResponseBody().write(body); exchange.close(); });
        server.start();
        var reply = HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create("http://127.0.0.1:8080/")).build(), HttpResponse.BodyHandlers.ofByteArray());
        System.out.println(reply.body().length);
        System.exit(6);
    }
}
