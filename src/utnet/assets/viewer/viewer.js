/* The 3D view of UTNet's pages: the meshes of a GLB, which the reader turns. Needs three.min.js (the global THREE). */
"use strict";

class HandViewer {
  /* Fills `container`, an element with a size of its own. Throws where the browser has no WebGL. */
  constructor(container) {
    this.container = container;
    this.renderer = new THREE.WebGLRenderer({ antialias: true, alpha: true });
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    const canvas = this.renderer.domElement;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Hands in 3D");
    container.append(canvas);

    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(35, 1, 0.005, 50);
    const key = new THREE.DirectionalLight(0xffffff, 2.2);
    key.position.set(-0.4, 0.8, 1);
    this.camera.add(key); /* the light stays behind the reader's shoulder */
    this.scene.add(this.camera, new THREE.HemisphereLight(0xffffff, 0x8899aa, 1.3));
    this.controls = new THREE.OrbitControls(this.camera, canvas);
    this.controls.listenToKeyEvents(canvas);
    this.controls.addEventListener("change", () => this.draw());
    this.hands = null;
    this.waiting = false;
    new ResizeObserver(() => this.resize()).observe(container);
    this.resize();
  }

  /* Shows the hands of a GLB (ArrayBuffer); `keepView` leaves the camera where the reader has put it. */
  async show(glb, { keepView = false } = {}) {
    const loaded = await new THREE.GLTFLoader().parseAsync(glb, "");
    const first = this.hands === null;
    this.clear();
    this.hands = loaded.scene;
    this.hands.traverse((part) => {
      if (part.isMesh) part.material.side = THREE.DoubleSide; /* the wrist is open */
    });
    this.scene.add(this.hands);
    if (first || !keepView) this.resetView();
    this.draw();
  }

  clear() {
    if (this.hands === null) return;
    this.scene.remove(this.hands);
    this.hands.traverse((part) => {
      if (part.isMesh) {
        part.geometry.dispose();
        part.material.dispose();
      }
    });
    this.hands = null;
    this.draw();
  }

  /* Looks at the hands from where the picture was taken, near enough that they fill the view. */
  resetView() {
    if (this.hands === null) return;
    const box = new THREE.Box3().setFromObject(this.hands);
    const centre = box.getCenter(new THREE.Vector3());
    const radius = box.getSize(new THREE.Vector3()).length() / 2;
    const half = (this.camera.fov * Math.PI) / 360;
    const distance = (0.95 * radius) / Math.sin(Math.min(half, Math.atan(Math.tan(half) * this.camera.aspect)));
    const towards = centre.length() > 0 ? centre.clone().normalize().negate() : new THREE.Vector3(0, 0, 1);
    this.camera.position.copy(centre).addScaledVector(towards, distance);
    this.controls.target.copy(centre);
    this.controls.minDistance = radius / 20;
    this.controls.maxDistance = radius * 20;
    this.controls.update();
    this.draw();
  }

  resize() {
    const { clientWidth, clientHeight } = this.container;
    if (!clientWidth || !clientHeight) return;
    this.camera.aspect = clientWidth / clientHeight;
    this.camera.updateProjectionMatrix();
    this.renderer.setSize(clientWidth, clientHeight);
    this.renderer.render(this.scene, this.camera);
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.renderer.render(this.scene, this.camera);
    });
  }
}
