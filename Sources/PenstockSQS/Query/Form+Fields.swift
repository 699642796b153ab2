// SPDX-License-Identifier: Apache-2.0

/// How a member of a request lies in a form.
struct FormMember: Sendable {
  enum Shape: Sendable {
    /// A list of texts.
    case texts
    /// A map: each element has a key and a value, which is a text or, with members, a structure.
    case map(key: String, value: [FormMember]?)
    /// A list of structures.
    case structures([FormMember])
  }

  /// The member's name in JSON, which forms may use, too.
  var name: String
  /// What forms call each of its elements.
  var element: String
  var shape: Shape

  init(_ name: String, _ element: String, _ shape: Shape) {
    (self.name, self.element, self.shape) = (name, element, shape)
  }

  private static let value = [
    FormMember("StringListValues", "StringListValue", .texts),
    FormMember("BinaryListValues", "BinaryListValue", .texts),
  ]
  private static let attributes = FormMember(
    "Attributes", "Attribute", .map(key: "Name", value: nil))
  private static let tags = FormMember("Tags", "Tag", .map(key: "Key", value: nil))
  private static let send = [
    FormMember("MessageAttributes", "MessageAttribute", .map(key: "Name", value: value)),
    FormMember(
      "MessageSystemAttributes", "MessageSystemAttribute", .map(key: "Name", value: value)),
  ]

  /// The members of an action that are more than one text.
  static func members(of action: Action) -> [FormMember] {
    func entries(_ members: [FormMember] = []) -> [FormMember] {
      [FormMember("Entries", "\(action.rawValue)RequestEntry", .structures(members))]
    }
    return switch action {
    case .createQueue, .setQueueAttributes, .tagQueue: [attributes, tags]
    case .untagQueue: [FormMember("TagKeys", "TagKey", .texts)]
    case .getQueueAttributes: [FormMember("AttributeNames", "AttributeName", .texts)]
    case .receiveMessage:
      [
        // Both lists of system attributes share one name in forms.
        FormMember("AttributeNames", "AttributeName", .texts),
        FormMember("MessageSystemAttributeNames", "MessageSystemAttributeName", .texts),
        FormMember("MessageAttributeNames", "MessageAttributeName", .texts),
      ]
    case .sendMessage: send
    case .sendMessageBatch: entries(send)
    case .deleteMessageBatch, .changeMessageVisibilityBatch: entries()
    case .addPermission:
      [
        FormMember("AWSAccountIds", "AWSAccountId", .texts),
        FormMember("Actions", "ActionName", .texts),
      ]
    default: []
    }
  }
}

extension Form {
  /// The form as the document that a JSON request of this action would have been, so that both
  /// protocols share all that follows. Numbers stay texts: the document says so.
  ///
  /// - Parameter queue: what the path names; a `QueueUrl` in the form counts before it.
  func document(for action: Action, queue: String?) -> JSONDocument {
    var builder = DocumentBuilder()
    builder.structure(
      FormMember.members(of: action), at: 0, of: self,
      and: self["QueueUrl"] == nil ? queue.map { ("QueueUrl", $0) } : nil)
    return JSONDocument(bytes: builder.bytes, tokens: builder.tokens, isForm: true)
  }
}

/// Appends values to a document.
private struct DocumentBuilder {
  var bytes: [UInt8] = []
  var tokens: [JSONDocument.Token] = []

  mutating func text(_ text: some Collection<UInt8>) {
    let start = Int32(bytes.count)
    bytes.append(contentsOf: text)
    tokens.append(
      .init(
        kind: .string, start: start, end: Int32(bytes.count), next: Int32(tokens.count + 1)))
  }

  mutating func container(_ kind: JSONDocument.Kind, _ body: (inout Self) -> Void) {
    let place = tokens.count
    let start = Int32(bytes.count)
    tokens.append(.init(kind: kind, start: start, end: start, next: 0))
    body(&self)
    tokens[place].next = Int32(tokens.count)
  }

  /// All that is at a place: its texts as they are, and `members` by their shapes.
  mutating func structure(
    _ members: [FormMember], at place: Int, of form: Form,
    and extra: (name: String, text: String)? = nil
  ) {
    let node = form.nodes[place]
    container(.object) { builder in
      if let extra {
        builder.text(extra.name.utf8)
        builder.text(extra.text.utf8)
      }
      for (name, child) in node.children {
        guard let text = form.nodes[child].text,
          !members.contains(where: { $0.name == name || $0.element == name })
        else { continue }
        builder.text(name.utf8)
        builder.text(text)
      }
      for member in members {
        guard let child = node.children[member.element] ?? node.children[member.name] else {
          continue
        }
        builder.text(member.name.utf8)
        builder.value(member.shape, at: child, of: form)
      }
    }
  }

  private mutating func value(_ shape: FormMember.Shape, at place: Int, of form: Form) {
    switch shape {
    case .structures(let members):
      container(.array) { builder in
        for element in form.elements(of: place) {
          builder.structure(members, at: element, of: form)
        }
      }
    case .texts:
      container(.array) { builder in
        for element in form.elements(of: place) {
          if let text = form.nodes[element].text { builder.text(text) }
        }
      }
    case .map(let key, let members):
      container(.object) { builder in
        for element in form.elements(of: place) {
          let node = form.nodes[element]
          let name = node.children[key].flatMap { form.nodes[$0].text }
          let child = node.children["Value"]
          builder.text(name ?? [])
          switch (members, child) {
          case (let members?, let child?): builder.structure(members, at: child, of: form)
          case (nil, let child?): builder.text(form.nodes[child].text ?? [])
          // As an empty structure, or an empty text.
          case (.some, nil): builder.container(.object) { _ in }
          case (nil, nil): builder.text([])
          }
        }
      }
    }
  }
}
