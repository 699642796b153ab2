// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import NIOSSL
internal import Synchronization

/// The certificate and key for new connections. Those that are there keep theirs.
final class TLSCredentials: Sendable {
  /// What is wrong with the files.
  struct Failure: Error, CustomStringConvertible {
    var description: String
  }

  private let configuration: PenstockServer.Configuration.TLS
  private let current = Mutex<NIOSSLContext?>(nil)

  init(_ configuration: PenstockServer.Configuration.TLS) { self.configuration = configuration }

  /// The files, for the watcher, which loads them for the first time, too.
  var files: WatchedFiles {
    WatchedFiles([configuration.certificatePath, configuration.keyPath]) { [self] contents in
      try load(certificate: contents[0], key: contents[1])
    }
  }

  /// A handler for a new connection; nil before the first load.
  func handler() -> NIOSSLServerHandler? {
    current.withLock { $0 }.map { NIOSSLServerHandler(context: $0) }
  }

  private func load(certificate: [UInt8], key: [UInt8]) throws {
    let (certificatePath, keyPath) = (configuration.certificatePath, configuration.keyPath)
    let chain: [NIOSSLCertificate]
    do { chain = try NIOSSLCertificate.fromPEMBytes(certificate) } catch {
      throw Failure(description: "\(certificatePath) holds no certificate in PEM")
    }
    guard !chain.isEmpty else {
      throw Failure(description: "\(certificatePath) holds no certificate in PEM")
    }
    let privateKey: NIOSSLPrivateKey
    do { privateKey = try NIOSSLPrivateKey(bytes: key, format: .pem) } catch {
      throw Failure(description: "\(keyPath) holds no private key in PEM without a passphrase")
    }
    var tls = TLSConfiguration.makeServerConfiguration(
      certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(privateKey))
    tls.minimumTLSVersion = .tlsv12
    tls.applicationProtocols = ["http/1.1"]
    // A peer that does not say goodbye is not waited for.
    tls.shutdownTimeout = .milliseconds(500)
    let context: NIOSSLContext
    do { context = try NIOSSLContext(configuration: tls) } catch {
      throw Failure(
        description: "the key in \(keyPath) does not belong to the first certificate in "
          + "\(certificatePath)")
    }
    current.withLock { $0 = context }
  }
}
