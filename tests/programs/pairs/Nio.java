import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

/** {@code serve PORT}: sends back what it gets. {@code check IP PORT}: connections side by side that compare. */
public class Nio {
    static final int COUNT = 50;
    static final int SIZE = 200_000;

    public static void main(String[] arguments) throws IOException {
        if (arguments[0].equals("serve")) {
            serve(Integer.parseInt(arguments[1]));
        } else {
            check(new InetSocketAddress(arguments[1], Integer.parseInt(arguments[2])));
            System.out.println("every byte came back");
        }
    }

    static void serve(int port) throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.setOption(StandardSocketOptions.SO_REUSEADDR, true);
        // The wildcard of the virtual machine's own sockets, which are of IPv6 and take IPv4 too.
        listener.bind(new InetSocketAddress(port), 128);
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            var keys = selector.selectedKeys();
            for (SelectionKey key : keys) {
                if (key.isAcceptable()) {
                    SocketChannel peer;
                    while ((peer = listener.accept()) != null) {
                        peer.configureBlocking(false);
                        peer.register(selector, SelectionKey.OP_READ, ByteBuffer.allocateDirect(1 << 16));
                    }
                } else {
                    try {
                        echo(key);
                    } catch (IOException gone) {
                        key.channel().close();
                    }
                }
            }
            keys.clear();
        }
    }

    /** Reads only when all that was read before is written. */
    static void echo(SelectionKey key) throws IOException {
        SocketChannel peer = (SocketChannel) key.channel();
        ByteBuffer buffer = (ByteBuffer) key.attachment();
        if (key.isReadable()) {
            if (peer.read(buffer) < 0) {
                peer.close();
                return;
            }
            buffer.flip();
        }
        peer.write(buffer);
        if (buffer.hasRemaining()) {
            key.interestOps(SelectionKey.OP_WRITE);
        } else {
            buffer.clear();
            key.interestOps(SelectionKey.OP_READ);
        }
    }

    /** What one connection has sent and got back so far. */
    static class Exchange {
        final ByteBuffer out = ByteBuffer.allocate(SIZE);
        final ByteBuffer back = ByteBuffer.allocate(SIZE + 1);

        Exchange(int number) {
            for (int at = 0; at < SIZE; at++) {
                out.put((byte) (at * (number + 1) % 251));
            }
            out.flip();
        }

        boolean isRight() {
            return back.flip().equals(out.rewind());
        }
    }

    static void check(InetSocketAddress to) throws IOException {
        Selector selector = Selector.open();
        for (int number = 0; number < COUNT; number++) {
            SocketChannel channel = SocketChannel.open();
            channel.configureBlocking(false);
            channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
            channel.register(selector, SelectionKey.OP_CONNECT, new Exchange(number));
            channel.connect(to);
        }
        int open = COUNT;
        while (open > 0) {
            selector.select();
            var keys = selector.selectedKeys();
            for (SelectionKey key : keys) {
                SocketChannel channel = (SocketChannel) key.channel();
                Exchange exchange = (Exchange) key.attachment();
                if (key.isConnectable()) {
                    channel.finishConnect();
                    if (!channel.getRemoteAddress().equals(to)) {
                        throw new IOException("connected to " + channel.getRemoteAddress());
                    }
                    key.interestOps(SelectionKey.OP_READ | SelectionKey.OP_WRITE);
                    continue;
                }
                if (key.isWritable()) {
                    channel.write(exchange.out);
                    if (!exchange.out.hasRemaining()) {
                        channel.shutdownOutput();
                        key.interestOps(SelectionKey.OP_READ);
                    }
                }
                if (key.isReadable() && channel.read(exchange.back) < 0) {
                    if (!exchange.isRight()) {
                        throw new IOException(exchange.back.limit() + " bytes came back of " + SIZE);
                    }
                    channel.close();
                    open--;
                }
            }
            keys.clear();
        }
    }
}
