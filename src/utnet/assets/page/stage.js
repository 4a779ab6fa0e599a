/* The picture with its hands: joints that can be dragged, and boxes that can be drawn. */
"use strict";

class Stage {
  /* Calls onMove(hand, points, last) while a joint is dragged and onBox(box) once a box is drawn, all in pixels. */
  constructor({ element, image, svg, onMove, onBox }) {
    Object.assign(this, { element, image, svg, onMove, onBox });
    this.size = [1, 1];
    this.hands = [];
    this.names = [];
    this.movable = false;
    this.dragged = null;
    this.svg.addEventListener("pointerdown", (event) => this.begin(event));
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    this.svg.addEventListener("pointerup", (event) => this.end(event));
    this.svg.addEventListener("pointercancel", () => this.cancel());
    new ResizeObserver(() => this.drawJoints()).observe(element);
  }

  /* Shows a picture before its hands are known. */
  preview(address) {
    this.hands = [];
    this.drawJoints();
    this.image.src = address;
  }

  /* Shows the drawn picture; resolves when it can be seen. A joint that is being dragged stays where the pointer is. */
  async show(address, { size_px, hands, movable }) {
    const loaded = new Image();
    loaded.src = address;
    await loaded.decode();
    this.image.src = address;
    Object.assign(this, { size: size_px, hands, movable });
    this.drawJoints();
  }

  get adding() {
    return this.element.classList.contains("adding");
  }

  set adding(on) {
    this.element.classList.toggle("adding", on);
  }

  /* Pixels of the picture a pixel of the screen. */
  get unit() {
    return this.size[0] / Math.max(1, this.image.clientWidth);
  }

  drawJoints() {
    this.svg.setAttribute("viewBox", `-0.5 -0.5 ${this.size[0]} ${this.size[1]}`);
    const parts = [];
    if (this.movable) {
      this.hands.forEach((hand, index) =>
        hand.joints_px.forEach((place, joint) => {
          const held = this.dragged && this.dragged.hand === index && this.dragged.joint === joint;
          const given = held ? this.dragged.place : hand.points[joint];
          const [x, y] = given || place;
          const grip = this.circle(x, y, 13, "grip");
          Object.assign(grip.dataset, { hand: index, joint });
          const title = document.createElementNS(this.svg.namespaceURI, "title");
          title.textContent = (this.names[joint] || "").replaceAll("_", " ");
          grip.append(title);
          parts.push(grip, this.circle(x, y, given ? 5 : Math.min(3.5, this.image.clientWidth / 150), given ? "dot moved" : "dot"));
        }),
      );
    }
    this.svg.replaceChildren(...parts);
  }

  circle(x, y, radius, kind) {
    const circle = document.createElementNS(this.svg.namespaceURI, "circle");
    const values = { cx: x, cy: y, r: radius * this.unit, class: kind, "stroke-width": this.unit };
    for (const [name, value] of Object.entries(values)) circle.setAttribute(name, value);
    return circle;
  }

  place(event) {
    const box = this.svg.getBoundingClientRect();
    const [width, height] = this.size;
    const x = ((event.clientX - box.left) / box.width) * width - 0.5;
    const y = ((event.clientY - box.top) / box.height) * height - 0.5;
    return [Math.min(Math.max(x, 0), width - 1), Math.min(Math.max(y, 0), height - 1)];
  }

  begin(event) {
    if (event.button !== 0 || this.dragged) return;
    const { hand, joint } = event.target.dataset;
    if (this.adding) this.dragged = { from: this.place(event), place: this.place(event) };
    else if (hand !== undefined) this.dragged = { hand: +hand, joint: +joint, place: this.place(event), moved: false };
    else return;
    event.preventDefault();
    this.svg.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (!this.dragged) return;
    this.dragged.place = this.place(event);
    this.dragged.moved = true;
    if (this.dragged.from) this.drawBox();
    else {
      this.drawJoints();
      this.onMove(this.dragged.hand, this.points(), false);
    }
  }

  end(event) {
    if (!this.dragged) return;
    const dragged = this.dragged;
    if (dragged.from) {
      this.cancel();
      const [[x0, y0], [x1, y1]] = [dragged.from, this.place(event)];
      const box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
      if (Math.min(box[2] - box[0], box[3] - box[1]) > 8 * this.unit) this.onBox(box);
    } else {
      const points = this.points();
      if (dragged.moved) this.hands[dragged.hand].points = points;
      this.cancel();
      if (dragged.moved) this.onMove(dragged.hand, points, true);
    }
  }

  cancel() {
    this.dragged = null;
    this.drawJoints();
  }

  /* The moved joints of the hand that is dragged. */
  points() {
    return { ...this.hands[this.dragged.hand].points, [this.dragged.joint]: this.dragged.place };
  }

  drawBox() {
    const [[x0, y0], [x1, y1]] = [this.dragged.from, this.dragged.place];
    const box = document.createElementNS(this.svg.namespaceURI, "rect");
    const values = { x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) };
    for (const [name, value] of Object.entries({ ...values, class: "box", "stroke-width": 2 * this.unit }))
      box.setAttribute(name, value);
    this.svg.replaceChildren(box);
  }
}
